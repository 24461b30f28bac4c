//! File systems that take two names for one, mostly since they do not tell upper and lower case apart.

use std::{ffi::CStr, os::fd::BorrowedFd};

use rustix::{
    fs::{AtFlags, Mode, RawDir, openat, statat},
    io::Errno,
};

use super::{partial::meanwhile, restore::DIRECTORY, shown};
use crate::error::{Error, ErrorKind};

/// Bytes of the buffer that looks through a folder.
const LOOK_BYTES: usize = 32 << 10;

/// The name that a folder lists for what has the name `name`, if that is another one.
pub(super) fn other_name(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<Option<Vec<u8>>> {
    let inode = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(status) => status.st_ino,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let again = openat(dir, c".", DIRECTORY, Mode::empty())?;
    let mut buffer = Vec::with_capacity(LOOK_BYTES);
    let mut entries = RawDir::new(again, buffer.spare_capacity_mut());
    let mut among = Among { name: name.to_bytes(), inode, is_listed: false, other: None };
    while let Some(entry) = entries.next() {
        let entry = entry?;
        among.meet(entry.file_name().to_bytes(), entry.ino());
    }
    Ok(among.other.filter(|_| !among.is_listed))
}

/// Looks for a name, and for another one of the same inode, among those that a folder lists.
struct Among<'a> {
    name: &'a [u8],
    inode: u64,
    is_listed: bool,
    other: Option<Vec<u8>>,
}

impl Among<'_> {
    fn meet(&mut self, name: &[u8], inode: u64) {
        if name == self.name {
            self.is_listed = true;
        } else if inode == self.inode {
            self.other = Some(name.to_vec());
        }
    }
}

/// The same name with its upper case letters as lower case ones, and the other way round; `None` if it has none.
pub(super) fn swapped(name: &[u8]) -> Option<Vec<u8>> {
    let swap = |byte: &u8| if byte.is_ascii_alphabetic() { byte ^ 0x20 } else { *byte };
    name.iter().any(u8::is_ascii_alphabetic).then(|| name.iter().map(swap).collect())
}

/// The error of two names of a snapshot that are one in the target: `other` is there already.
#[must_use]
pub fn one_name(name: &[u8], other: &[u8]) -> Error {
    let (name, other) = (shown(name), shown(other));
    let message = format!("this file system takes {name} and {other} for one name, and {other} stays");
    Error::new(ErrorKind::Failed, message)
        .with_remedy("Restore it into another folder, or where upper and lower case are told apart")
}

/// The error of a name that nothing had, and that cannot be given: something has it by now.
pub(super) fn taken(dir: BorrowedFd<'_>, name: &CStr) -> Error {
    match other_name(dir, name) {
        Ok(Some(other)) => one_name(name.to_bytes(), &other),
        Ok(None) | Err(_) => {
            meanwhile(format!("{} was made by somebody else meanwhile, and stays", shown(name.to_bytes())))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{ffi::CString, fs, os::fd::AsFd};

    use super::*;

    #[test]
    fn letters_change_their_case_and_nothing_else_does() {
        assert_eq!(swapped(b"a-Z[`{9").as_deref(), Some(&b"A-z[`{9"[..]));
        assert_eq!(swapped(b"[`{9"), None);
    }

    #[test]
    fn another_name_is_one_of_the_same_inode_beside_which_the_name_is_not_listed() {
        let among = |listed: &[(&[u8], u64)]| {
            let mut among = Among { name: b"a", inode: 7, is_listed: false, other: None };
            listed.iter().for_each(|(name, inode)| among.meet(name, *inode));
            (among.is_listed, among.other)
        };
        assert_eq!(among(&[(b"B", 6), (b"A", 7)]), (false, Some(b"A".to_vec())));
        assert_eq!(among(&[(b"A", 7), (b"a", 7)]), (true, Some(b"A".to_vec())));
        assert_eq!(among(&[(b"B", 6)]), (false, None));
    }

    #[test]
    fn a_name_that_is_listed_has_no_other_one() {
        let folder = tempfile::tempdir().unwrap();
        fs::File::create(folder.path().join("one")).unwrap();
        fs::hard_link(folder.path().join("one"), folder.path().join("two")).unwrap();
        let dir = fs::File::open(folder.path()).unwrap();
        let other = |name: &str| other_name(dir.as_fd(), &CString::new(name).unwrap()).unwrap();
        assert_eq!((other("one"), other("two"), other("three")), (None, None, None));
        assert!(taken(dir.as_fd(), c"one").to_string().contains("meanwhile"));
        assert!(one_name(b"a", b"A").to_string().contains("a and A"));
    }
}
