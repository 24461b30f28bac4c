//! What machines read: one object a line, each with its `message_type`.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Map, Value};

use crate::{error::Error, format::entry::EntryKind};

/// An object with its `message_type`.
#[must_use]
pub fn message(kind: &str, fields: Value) -> Value {
    let mut all = Map::new();
    all.insert("message_type".to_owned(), Value::from(kind));
    if let Value::Object(fields) = fields {
        all.extend(fields);
    }
    Value::Object(all)
}

/// Adds a path as `path`; where it is not UTF-8 that is only nearly it, and `path_b64` has its bytes.
#[must_use]
pub fn with_path(mut message: Value, path: &[u8]) -> Value {
    if let Value::Object(fields) = &mut message {
        fields.insert("path".to_owned(), Value::from(String::from_utf8_lossy(path)));
        if std::str::from_utf8(path).is_err() {
            fields.insert("path_b64".to_owned(), Value::from(STANDARD.encode(path)));
        }
    }
    message
}

/// The path of an entry with its leading slash.
#[must_use]
pub fn absolute(entry: &[u8]) -> Vec<u8> {
    [b"/", entry].concat()
}

/// The last message of a command that did not end with 0.
#[must_use]
pub fn exit_error(error: &Error) -> Value {
    let mut causes = Vec::new();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        causes.push(Value::from(error.to_string()));
        cause = error.source();
    }
    let fields = serde_json::json!({
        "code": error.kind().exit_code(),
        "message": error.to_string(),
        "remedy": error.remedy(),
        "causes": causes,
    });
    message("exit_error", fields)
}

/// `st_mode`: the permission bits with the kind of the entry.
#[must_use]
pub const fn st_mode(kind: EntryKind, permissions: u32) -> u32 {
    let kind = match kind {
        EntryKind::File => 0o100_000,
        EntryKind::Directory => 0o040_000,
        EntryKind::Symlink => 0o120_000,
        EntryKind::Fifo => 0o010_000,
        EntryKind::CharacterDevice => 0o020_000,
        EntryKind::BlockDevice => 0o060_000,
        EntryKind::Socket => 0o140_000,
    };
    kind | permissions
}

/// What the kind of an entry is called.
#[must_use]
pub const fn kind_name(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::File => "file",
        EntryKind::Directory => "directory",
        EntryKind::Symlink => "symlink",
        EntryKind::Fifo => "fifo",
        EntryKind::CharacterDevice => "character_device",
        EntryKind::BlockDevice => "block_device",
        EntryKind::Socket => "socket",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn a_name_that_is_not_text_keeps_its_bytes() {
        let plain = with_path(message("error", serde_json::json!({})), b"/a");
        assert_eq!(plain.to_string(), r#"{"message_type":"error","path":"/a"}"#);
        let odd = with_path(message("error", serde_json::json!({})), b"/\xff");
        assert_eq!(odd["path"], "/\u{fffd}");
        assert_eq!(odd["path_b64"], "L/8=");
    }

    #[test]
    fn an_exit_error_has_code_message_remedy_and_causes() {
        let cause = Error::new(ErrorKind::Failed, "inner");
        let error = Error::new(ErrorKind::CannotUnlock, "outer").with_remedy("do this").with_source(cause);
        let value = exit_error(&error);
        assert_eq!(value["code"], 12);
        assert_eq!(value["message"], "outer");
        assert_eq!(value["remedy"], "do this");
        assert_eq!(value["causes"][0], "inner");
        assert_eq!(st_mode(EntryKind::Directory, 0o755), 0o40755);
    }
}
