//! What tells a storage from every other one that holds the same objects. Promise: what has the same place is the same
//! storage, as far as anybody can see; one that cannot be told is none. A storage that was moved or is reached by
//! another address may have another place: whatever counts for one place only is done once more then.

use std::{
    fs::{Metadata, canonicalize, metadata},
    io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
    time::UNIX_EPOCH,
};

use super::name::Name;

/// Where objects are.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// In a folder.
    Folder,
    /// In a bucket, with its endpoint.
    Bucket(String),
    /// In memory, for example: nobody can tell.
    Unknown,
}

impl Place {
    /// The hash of what tells it, which is all that anybody compares; nothing where nothing does.
    pub(super) fn id(&self, folder: Option<&Path>) -> Option<String> {
        let told = match self {
            Self::Folder => of_folder(folder?).ok()?,
            Self::Bucket(address) => address.as_bytes().to_vec(),
            Self::Unknown => return None,
        };
        Some(blake3::hash(&told).to_hex().to_string())
    }
}

/// When the file system made `config`, and as which inode: no copy of files can bring these along, and a folder that gets
/// another name or is mounted elsewhere keeps them. A file system that does not tell leaves the name of the folder on
/// this machine.
fn of_folder(folder: &Path) -> io::Result<Vec<u8>> {
    let config = metadata(folder.join(Name::config().as_str()))?;
    if let Some(birth) = birth(&config) {
        return Ok(format!("inode {} made at {birth}", config.ino()).into_bytes());
    }
    let system = rustix::system::uname();
    let machine = system.nodename().to_bytes();
    Ok([machine, b":", canonicalize(folder)?.as_os_str().as_bytes()].concat())
}

/// Nanoseconds since 1970. A file system that knows none may call it the beginning of 1970.
fn birth(file: &Metadata) -> Option<u128> {
    let birth = file.created().ok()?.duration_since(UNIX_EPOCH).ok()?.as_nanos();
    (birth > 0).then_some(birth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_keeps_its_place_under_another_name_and_a_copy_has_its_own() {
        let root = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| root.path().join(name));
        std::fs::create_dir(&one).unwrap();
        let id = |folder: &Path| Place::Folder.id(Some(folder));
        assert_eq!(id(&one), None, "without config it is no repository");
        std::fs::File::create(one.join("config")).unwrap();
        let before = id(&one).unwrap();
        std::fs::rename(&one, &two).unwrap();
        let told = metadata(two.join("config")).unwrap();
        if birth(&told).is_some() {
            assert_eq!(id(&two).unwrap(), before);
        }
        std::fs::create_dir(&one).unwrap();
        std::fs::copy(two.join("config"), one.join("config")).unwrap();
        assert_ne!(id(&one), id(&two));
    }

    #[test]
    fn a_bucket_is_its_address_and_what_nobody_can_tell_is_no_place() {
        let [one, two] =
            ["s3:https://h/b", "s3:https://g/b"].map(|text| Place::Bucket(text.to_owned()).id(None));
        assert!(one.is_some() && one != two);
        assert_eq!(Place::Unknown.id(None), None);
    }
}
