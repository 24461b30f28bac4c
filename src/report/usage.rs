//! An account of a bucket, for people and for machines. The shares of the rows and the fixed rows sum to the
//! bucket, so both stand in one column.

use serde_json::{Map, Value, json};

use super::{
    csv, json as messages,
    table::{Side, Table},
    text,
};
use crate::ops::usage::{By, Findings, Row, RowName, Usage};

/// The name of a row: `label`, `label@host`, or a folder.
#[must_use]
pub fn name(row: &RowName) -> String {
    match row {
        RowName::Client { label, host: None } => text::shown(label.as_bytes()),
        RowName::Client { label, host: Some(host) } => text::shown(format!("{label}@{host}").as_bytes()),
        RowName::Path(path) => text::path(path),
    }
}

const fn title(by: By) -> &'static str {
    match by {
        By::Client => "client",
        By::Path(_) => "path",
    }
}

/// What no row has a share of, with its bytes.
#[must_use]
pub fn fixed(usage: &Usage) -> Vec<(&'static str, u64)> {
    let classes = usage.classes.all().into_iter();
    let mut fixed: Vec<_> = classes.filter(|(name, _)| !name.starts_with("reached")).collect();
    if let By::Path(_) = usage.by {
        fixed.insert(0, ("reached_metadata", usage.unshared()));
    }
    fixed
}

/// `1,234`.
fn grouped(bytes: u64) -> String {
    text::count(bytes, "", "").trim_end().to_owned()
}

/// The rows, the fixed rows and the sum of their last column.
#[must_use]
pub fn table(usage: &Usage) -> Table {
    let first = match usage.by {
        By::Client => "Client",
        By::Path(_) => "Path",
    };
    let numbers = ["Logical", "Stored", "Exclusive", "Shared", "Fair share"].map(|name| (name, Side::Right));
    let mut table = Table::new(&[&[(first, Side::Left)], &numbers[..]].concat());
    for row in &usage.rows {
        let Row { logical, stored, exclusive, shared, fair_share, .. } = row;
        let numbers = [logical, stored, exclusive, shared, fair_share].map(|bytes| grouped(*bytes));
        table.row([vec![name(&row.name)], numbers.to_vec()].concat());
    }
    let mut last_column = |name: &str, bytes: u64| {
        let empty = vec![String::new(); 4];
        table.row([vec![name.to_owned()], empty, vec![grouped(bytes)]].concat());
    };
    for (name, bytes) in fixed(usage) {
        last_column(&format!("({})", name.replace('_', " ")), bytes);
    }
    last_column("bucket", usage.bucket);
    table
}

/// The same as CSV; the kind of a line is `client`, `path`, `fixed` or `total`.
#[must_use]
pub fn csv(usage: &Usage) -> String {
    let title = title(usage.by);
    let numbers = ["logical_bytes", "stored_bytes", "exclusive_bytes", "shared_bytes", "fair_share_bytes"];
    let mut text = csv::line(&[&["kind", title], &numbers[..]].concat());
    for row in &usage.rows {
        let Row { logical, stored, exclusive, shared, fair_share, .. } = row;
        let numbers = [logical, stored, exclusive, shared, fair_share].map(ToString::to_string);
        let mut cells = vec![title.to_owned(), name(&row.name)];
        cells.extend(numbers);
        text += &csv::line(&cells.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let single = |kind: &str, name: &str, bytes: u64| {
        csv::line(&[kind, name, "", "", "", "", bytes.to_string().as_str()])
    };
    for (name, bytes) in fixed(usage) {
        text += &single("fixed", name, bytes);
    }
    text + &single("total", "bucket", usage.bucket)
}

/// A row as a message.
#[must_use]
pub fn message(row: &Row) -> Value {
    let Row { name: which, logical, stored, exclusive, shared, fair_share } = row;
    let mut fields = Map::new();
    if let RowName::Client { label, host } = which {
        fields.insert("client".to_owned(), Value::from(name(which)));
        fields.insert("label".to_owned(), Value::from(label.as_str()));
        fields.insert("host".to_owned(), Value::from(host.as_deref()));
    }
    let numbers = [
        ("logical_bytes", logical),
        ("stored_bytes", stored),
        ("exclusive_bytes", exclusive),
        ("shared_bytes", shared),
        ("fair_share_bytes", fair_share),
    ];
    fields.extend(numbers.map(|(name, bytes)| (name.to_owned(), Value::from(*bytes))));
    let message = messages::message("row", Value::Object(fields));
    match which {
        RowName::Client { .. } => message,
        RowName::Path(path) => messages::with_path(message, &messages::absolute(path)),
    }
}

/// The sums as a message.
#[must_use]
pub fn summary(usage: &Usage) -> Value {
    let Findings { unindexed, set_aside, deleted, dying, unexplained_found, problems_found, .. } =
        &usage.findings;
    let mut fields = Map::new();
    for (name, bytes) in usage.classes.all() {
        fields.insert(format!("{name}_bytes"), Value::from(bytes));
    }
    let shares: u64 = usage.rows.iter().map(|row| row.fair_share).sum();
    let others = json!({
        "bucket_bytes": usage.bucket,
        "objects": usage.objects,
        "by": title(usage.by),
        "depth": match usage.by { By::Client => None, By::Path(depth) => Some(depth) },
        "rows": usage.rows.len(),
        "fair_share_bytes": shares,
        "fixed_bytes": fixed(usage).iter().map(|(_, bytes)| bytes).sum::<u64>(),
        "snapshots": usage.snapshots,
        "nodes": usage.nodes,
        "unindexed_packs": unindexed.objects,
        "unindexed_bytes": unindexed.bytes,
        "set_aside_packs": set_aside.objects,
        "set_aside_bytes": set_aside.bytes,
        "deleted_packs": deleted,
        "blobs_to_rescue": dying,
        "unexplained_objects": unexplained_found,
        "problems": problems_found,
    });
    if let Value::Object(others) = others {
        fields.extend(others);
    }
    messages::message("summary", Value::Object(fields))
}
