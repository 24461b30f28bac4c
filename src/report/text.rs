//! Text that a terminal shows as it is: names of files may hold anything.

use crate::format::entry::EntryKind;

/// Bytes of a path or a name as one line of text: what is not UTF-8 becomes a mark, and control characters,
/// which could move the cursor or pretend to be output of this program, are written out.
#[must_use]
pub fn shown(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for character in String::from_utf8_lossy(bytes).chars() {
        // Marks that end lines, reorder text or show nothing make one name look like another.
        let misleads = matches!(
            character,
            '\u{61c}' | '\u{200b}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        );
        if character.is_control() || misleads {
            text.extend(character.escape_default());
        } else {
            text.push(character);
        }
    }
    text
}

/// The path of an entry, with its leading slash.
#[must_use]
pub fn path(entry: &[u8]) -> String {
    let mut text = String::from("/");
    text.push_str(&shown(entry));
    text
}

/// A word of a command line that a shell takes as it is.
#[must_use]
pub fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-:@%+=,".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// A number with its noun: `1 file`, `2 files`.
#[must_use]
pub fn count(number: u64, one: &str, many: &str) -> String {
    let mut text = String::new();
    let digits = number.to_string();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text.push(' ');
    text.push_str(if number == 1 { one } else { many });
    text
}

/// `drwxr-sr-x`: what `ls -l` says of an entry.
#[must_use]
pub fn permissions(kind: EntryKind, mode: u32) -> String {
    let first = match kind {
        EntryKind::File => '-',
        EntryKind::Directory => 'd',
        EntryKind::Symlink => 'l',
        EntryKind::Fifo => 'p',
        EntryKind::CharacterDevice => 'c',
        EntryKind::BlockDevice => 'b',
        EntryKind::Socket => 's',
    };
    let mut text = String::from(first);
    // Who, and the special bit that shows in the place of its x.
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, mode & special != 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_drive_the_terminal() {
        assert_eq!(shown(b"a\x1b[2Jb\n\tc"), "a\\u{1b}[2Jb\\n\\tc");
        assert_eq!(shown("\u{202e}gpj.exe".as_bytes()), "\\u{202e}gpj.exe");
        for mark in
            ['\u{61c}', '\u{200b}', '\u{200f}', '\u{2028}', '\u{2066}', '\u{feff}', '\u{85}', '\u{7f}']
        {
            assert_eq!(shown(mark.to_string().as_bytes()), mark.escape_default().to_string());
        }
        assert_eq!(shown("gr\u{fc}n \u{1f6f6}".as_bytes()), "gr\u{fc}n \u{1f6f6}");
        assert_eq!(path(b"x\xff"), "/x\u{fffd}");
    }

    #[test]
    fn permissions_are_shown_as_ls_does() {
        assert_eq!(permissions(EntryKind::File, 0o644), "-rw-r--r--");
        assert_eq!(permissions(EntryKind::Directory, 0o2751), "drwxr-s--x");
        assert_eq!(permissions(EntryKind::File, 0o7644), "-rwSr-Sr-T");
    }

    #[test]
    fn a_shell_takes_a_quoted_word_as_it_is() {
        assert_eq!(quoted("s3:https://h:9/b/a_1"), "s3:https://h:9/b/a_1");
        assert_eq!(quoted("my $HOME"), "'my $HOME'");
        assert_eq!(quoted("it's"), "'it'\\''s'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn numbers_are_grouped_and_agree_with_their_noun() {
        assert_eq!(count(0, "file", "files"), "0 files");
        assert_eq!(count(1, "file", "files"), "1 file");
        assert_eq!(count(1_234_567, "file", "files"), "1,234,567 files");
        assert_eq!(count(123, "file", "files"), "123 files");
    }
}
