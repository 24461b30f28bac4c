//! The layer diagram in docs/architecture.md, as a test.
use std::{collections::HashMap, fs, path::Path};

/// The row of each module: it may name only modules of lower ones.
fn layers() -> HashMap<String, u32> {
    let table = fs::read_to_string("docs/architecture.md").expect("the document is there");
    let mut layers = HashMap::new();
    for line in table.lines().filter(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let Some(row) = cells.get(1).and_then(|row| row.parse().ok()) else { continue };
        layers.extend(cells[2].split(", ").map(|module| (module.trim_matches('`').to_owned(), row)));
    }
    layers
}

/// Module names after `crate::`, in both `crate::a` and `crate::{a, b::c}` form.
fn names(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for rest in code.split("crate::").skip(1) {
        let group = match rest.strip_prefix('{') {
            Some(inner) => top_level_items(inner),
            None => vec![rest],
        };
        for item in group {
            let name: String = item.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            // A trailing comma leaves an empty item.
            if !name.is_empty() {
                found.push(name);
            }
        }
    }
    found
}

fn top_level_items(inner: &str) -> Vec<&str> {
    let (mut depth, mut start, mut items) = (0_u32, 0, Vec::new());
    for (at, c) in inner.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                items.extend(inner.get(start..at));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.extend(inner.get(start..at));
                start = at + 1;
            }
            _ => {}
        }
    }
    items
}

fn check(dir: &Path, module: Option<&str>, layers: &HashMap<String, u32>, bad: &mut Vec<String>) {
    for entry in fs::read_dir(dir).expect("src is readable") {
        let path = entry.expect("entry").path();
        let stem = path.file_stem().and_then(|s| s.to_str()).expect("utf-8 name").to_owned();
        if stem == "bin" || stem == "lib" {
            continue;
        }
        let owner = module.unwrap_or(&stem);
        if path.is_dir() {
            check(&path, Some(owner), layers, bad);
            continue;
        }
        let text = fs::read_to_string(&path).expect("source is utf-8");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let mine = layers.get(owner).expect("docs/architecture.md has a row for every module");
        for name in names(code) {
            if name != owner && layers.get(&name).is_none_or(|theirs| theirs >= mine) {
                bad.push(format!("{}: {owner} may not use {name}", path.display()));
            }
        }
    }
}

#[test]
fn modules_only_depend_downwards() {
    let mut bad = Vec::new();
    let layers = layers();
    check(Path::new("src"), None, &layers, &mut bad);
    assert!(bad.is_empty(), "{bad:#?}");
}

#[test]
fn the_check_reads_plain_and_grouped_names() {
    assert_eq!(names("use crate::error::Error;"), ["error"]);
    assert_eq!(names("use crate::{id::{A, B}, store, format::x};"), ["id", "store", "format"]);
}
