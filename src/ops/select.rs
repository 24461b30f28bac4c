//! Which snapshots are meant: filters, and references such as `latest~2` or the first digits of an id.

use std::collections::HashMap;

use crate::{
    error::{Error, ErrorKind, Result},
    id::ObjectId,
    repository::snapshots::{KnownSnapshot, SealedSnapshot, SnapshotName},
};

/// Digits of a snapshot's id that are shown.
pub const ID_DIGITS_SHOWN: usize = 8;

/// Filters. Each that is empty lets everything pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of one of these hosts.
    pub hosts: Vec<String>,
    /// With one of these among its sources: absolute paths.
    pub paths: Vec<Vec<u8>>,
    /// With all tags of one of these lists.
    pub tags: Vec<Vec<String>>,
}

impl Filter {
    /// Whether a snapshot passes.
    #[must_use]
    pub fn matches(&self, snapshot: &KnownSnapshot) -> bool {
        let record = &snapshot.record;
        let has_all = |tags: &Vec<String>| tags.iter().all(|tag| snapshot.tags.contains(tag));
        (self.hosts.is_empty() || self.hosts.contains(&record.host))
            && (self.paths.is_empty() || self.paths.iter().any(|path| record.sources.contains(path)))
            && (self.tags.is_empty() || self.tags.iter().any(has_all))
    }

    /// Those that pass, for a command that writes. Something that no snapshot has is mistyped, also beside a host that is
    /// known: nothing would be said or done of what was meant, and nobody would hear of it.
    ///
    /// # Errors
    /// `Usage` when none passes, or it asks for something that no snapshot has; `Forbidden` when there are others, which this
    /// key cannot read.
    pub fn pass<'a>(
        &self,
        snapshots: &'a [KnownSnapshot],
        sealed: &[SealedSnapshot],
    ) -> Result<Vec<&'a KnownSnapshot>> {
        let passing: Vec<_> = snapshots.iter().filter(|known| self.matches(known)).collect();
        let and = if self.is_empty() { "" } else { " that passes the filters" };
        let (what, remedy) = match self.first_without(snapshots) {
            _ if passing.is_empty() => {
                (format!("there is no snapshot{and}"), "`lifeboat snapshots` lists them")
            }
            Some(has) => {
                (format!("no snapshot {has}"), "`lifeboat snapshots` shows all hosts, paths and tags")
            }
            None => return Ok(passing),
        };
        refuse_sealed(sealed)?;
        Err(Error::new(ErrorKind::Usage, format!("{what}, so nothing was done")).with_remedy(remedy))
    }

    /// The first thing that it asks for and that no snapshot has, such as "is of the host `web`".
    fn first_without(&self, snapshots: &[KnownSnapshot]) -> Option<String> {
        let Self { hosts, paths, tags } = self;
        let any = |has: &dyn Fn(&KnownSnapshot) -> bool| snapshots.iter().any(has);
        let host = hosts.iter().find(|host| !any(&|known| known.record.host == **host));
        let path = paths.iter().find(|path| !any(&|known| known.record.sources.contains(path)));
        let has_all =
            |known: &KnownSnapshot, tags: &[String]| tags.iter().all(|tag| known.tags.contains(tag));
        let tag = tags.iter().find(|tags| !any(&|known| has_all(known, tags)));
        host.map(|host| format!("is of the host `{host}`"))
            .or_else(|| path.map(|path| format!("has the source `{}`", String::from_utf8_lossy(path))))
            .or_else(|| tag.map(|tags| format!("has the tags `{}`", tags.join(","))))
    }

    /// Whether it lets everything pass.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.paths.is_empty() && self.tags.is_empty()
    }
}

/// One snapshot, as a user names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reference {
    /// `latest`, or with `~N` the one N before it.
    Latest(usize),
    /// The first digits of an id.
    Id(String),
}

impl Reference {
    /// Reads `latest`, `latest~2` or the first digits of an id.
    ///
    /// # Errors
    /// `Usage` for anything else.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || {
            Error::new(ErrorKind::Usage, format!("`{text}` does not name a snapshot"))
                .with_remedy("Write latest, latest~2 or the first digits of an id from `lifeboat snapshots`")
        };
        if text == "latest" {
            return Ok(Self::Latest(0));
        }
        if let Some(back) = text.strip_prefix("latest~") {
            return back.parse().map(Self::Latest).map_err(|e| wrong().with_source(e));
        }
        let digits = text.to_ascii_lowercase();
        let is_hex = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hex { Ok(Self::Id(digits)) } else { Err(wrong()) }
    }

    /// Whether it names this snapshot by its id.
    #[must_use]
    pub fn is_id_of(&self, id: &ObjectId) -> bool {
        matches!(self, Self::Id(digits) if id.to_string().starts_with(digits))
    }

    /// # Errors
    /// `Forbidden` when it names one by its id that this key cannot read.
    pub fn refuse_one_of(&self, sealed: &[SealedSnapshot]) -> Result<()> {
        let one = sealed.iter().find(|one| self.is_id_of(&one.name.id));
        refuse_sealed(one.map_or(&[], std::slice::from_ref))
    }

    /// As [`Self::find`], where there are snapshots besides that this key cannot read: an older one is not taken for the
    /// newest because of that.
    ///
    /// # Errors
    /// As [`Self::find`]; `Forbidden` when the one that is meant may be one of those.
    pub fn find_among<'a>(
        &self,
        (snapshots, sealed): (&'a [KnownSnapshot], &[SealedSnapshot]),
        filter: &Filter,
    ) -> Result<&'a KnownSnapshot> {
        let found = self.find(snapshots, filter);
        let known = found.as_ref().ok().map(|known| &known.name);
        let may_be_meant = |one: &&SealedSnapshot| match self {
            Self::Latest(_) => {
                may_pass(&one.name, snapshots, filter) && known.is_none_or(|known| is_newer(&one.name, known))
            }
            Self::Id(_) => known.is_none() && self.is_id_of(&one.name.id),
        };
        let Some(one) = sealed.iter().filter(may_be_meant).max_by_key(|one| one.name.stored) else {
            return found;
        };
        let short =
            |name: &SnapshotName| name.id.to_string().chars().take(ID_DIGITS_SHOWN).collect::<String>();
        let what = match self {
            Self::Latest(_) => format!("a newer snapshot is there, {}: {}", short(&one.name), one.why),
            Self::Id(_) => one.why.clone(),
        };
        let older = known.map_or_else(String::new, |known| {
            format!(". If the one before is meant, name it: {}", short(known))
        });
        Err(Error::new(ErrorKind::Forbidden, what).with_remedy(format!("{}{older}", one.remedy)))
    }

    /// The snapshot that is meant among those that pass the filter; `snapshots` are oldest first.
    ///
    /// # Errors
    /// There is none, or there are several.
    pub fn find<'a>(&self, snapshots: &'a [KnownSnapshot], filter: &Filter) -> Result<&'a KnownSnapshot> {
        let mut passing = snapshots.iter().filter(|snapshot| filter.matches(snapshot));
        let none = |what: String| {
            let and = if filter.is_empty() { "" } else { " that passes the filters" };
            Error::new(ErrorKind::Failed, format!("there is no snapshot {what}{and}"))
                .with_remedy("`lifeboat snapshots` lists them")
        };
        match self {
            Self::Latest(0) => passing.next_back().ok_or_else(|| none("yet".to_owned())),
            Self::Latest(back) => passing.nth_back(*back).ok_or_else(|| none(format!("`latest~{back}`"))),
            Self::Id(digits) => {
                let found: Vec<_> = passing.filter(|known| self.is_id_of(&known.name.id)).collect();
                match found[..] {
                    [one] => Ok(one),
                    [] => Err(none(format!("`{digits}`"))),
                    _ => Err(Error::new(
                        ErrorKind::Failed,
                        format!("`{digits}` means {} snapshots", found.len()),
                    )
                    .with_remedy(
                        "Give more digits of the id: `lifeboat snapshots --json` shows all of them",
                    )),
                }
            }
        }
    }
}

/// Whether one that cannot be read may pass a filter. Its host is not known; what else its key wrote tells.
fn may_pass(name: &SnapshotName, snapshots: &[KnownSnapshot], filter: &Filter) -> bool {
    let is_of_key =
        |known: &&KnownSnapshot| (known.name.domain, known.name.identity) == (name.domain, name.identity);
    let mut of_key = snapshots.iter().filter(is_of_key).peekable();
    filter.is_empty() || of_key.peek().is_none() || of_key.any(|known| filter.matches(known))
}

fn is_newer(name: &SnapshotName, than: &SnapshotName) -> bool {
    if (name.domain, name.identity) == (than.domain, than.identity) {
        name.sequence > than.sequence
    } else {
        name.stored > than.stored
    }
}

/// Where no snapshot passes among those that can be read.
///
/// # Errors
/// `Forbidden` when there are others, which this key cannot read.
pub fn refuse_sealed(sealed: &[SealedSnapshot]) -> Result<()> {
    let Some(one) = sealed.first() else { return Ok(()) };
    Err(Error::new(ErrorKind::Forbidden, one.why.clone()).with_remedy(one.remedy.clone()))
}

/// A snapshot, or a path in it, as a user names it: `SNAP` or `SNAP:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The snapshot.
    pub reference: Reference,
    /// The path without its leading slash; empty for everything.
    pub path: Vec<u8>,
}

impl Place {
    /// Reads `SNAP` or `SNAP:PATH`.
    ///
    /// # Errors
    /// `Usage` for anything else.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let colon = text.iter().position(|byte| *byte == b':');
        let (reference, path) = match colon {
            Some(at) => (text.get(..at).unwrap_or_default(), text.get(at + 1..).unwrap_or_default()),
            None => (text, &[][..]),
        };
        let reference = Reference::parse(&String::from_utf8_lossy(reference))?;
        let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect();
        if names.iter().any(|name| *name == b"." || *name == b"..") {
            let path = String::from_utf8_lossy(path).into_owned();
            return Err(Error::new(ErrorKind::Usage, format!("the path `{path}` has `.` or `..` in it"))
                .with_remedy("Write it as it was backed up: SNAP:/srv/data"));
        }
        Ok(Self { reference, path: names.join(&b'/') })
    }
}

/// Of each host with its sources the last `count` snapshots; in the order they came.
#[must_use]
pub fn last_of_each_group(mut snapshots: Vec<KnownSnapshot>, count: usize) -> Vec<KnownSnapshot> {
    let mut seen: HashMap<(String, Vec<Vec<u8>>), usize> = HashMap::new();
    snapshots.reverse();
    snapshots.retain(|snapshot| {
        let group = (snapshot.record.host.clone(), snapshot.record.sources.clone());
        let found = seen.entry(group).or_default();
        *found += 1;
        *found <= count
    });
    snapshots.reverse();
    snapshots
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        format::snapshot::Snapshot,
        id::{DomainId, IdentityId, ObjectId},
        store::Name,
    };

    fn snapshot(id: u8, host: &str, source: &str, tags: &[&str]) -> KnownSnapshot {
        let mut bytes = [0; 32];
        bytes[0] = id;
        let id = ObjectId::new(bytes);
        let (domain, identity) = (DomainId::new([1; 8]), IdentityId::from_hex(&"01".repeat(IdentityId::LEN)));
        let identity = identity.unwrap();
        let name = Name::snapshot(&domain, &identity, 1, &id);
        let mut record = Snapshot::empty();
        host.clone_into(&mut record.host);
        record.sources.push(source.as_bytes().to_vec());
        KnownSnapshot {
            epoch: 1,
            is_copy: false,
            name: SnapshotName { name, domain, identity, sequence: 1, id, stored: record.time },
            record,
            tags: tags.iter().map(|&tag| tag.to_owned()).collect(),
            holds: Vec::new(),
        }
    }

    fn all() -> Vec<KnownSnapshot> {
        vec![
            snapshot(0xa1, "web", "/srv", &["daily"]),
            snapshot(0xa2, "db", "/srv", &["daily", "dump"]),
            snapshot(0xb3, "web", "/home", &[]),
            snapshot(0xb4, "web", "/srv", &["dump"]),
        ]
    }

    fn found(reference: &str, filter: &Filter) -> Result<String> {
        let id = Reference::parse(reference)?.find(&all(), filter)?.name.id.to_string();
        Ok(id.chars().take(2).collect())
    }

    #[test]
    fn references_count_back_from_the_newest_that_passes() {
        let web = Filter { hosts: vec!["web".to_owned()], ..Filter::default() };
        let srv = Filter { paths: vec![b"/srv".to_vec()], ..Filter::default() };
        assert_eq!(found("latest", &Filter::default()).unwrap(), "b4");
        assert_eq!(found("latest~2", &Filter::default()).unwrap(), "a2");
        assert_eq!(found("latest~2", &web).unwrap(), "a1");
        assert_eq!(found("latest~1", &srv).unwrap(), "a2");
        assert_eq!(found("latest~3", &web).unwrap_err().kind(), ErrorKind::Failed);
    }

    #[test]
    fn an_id_must_mean_one_snapshot() {
        assert_eq!(found("b3", &Filter::default()).unwrap(), "b3");
        assert_eq!(found("B3", &Filter::default()).unwrap(), "b3");
        assert!(found("a", &Filter::default()).unwrap_err().to_string().contains("2 snapshots"));
        assert!(found("c", &Filter::default()).unwrap_err().to_string().contains("no snapshot"));
        let db = Filter { hosts: vec!["db".to_owned()], ..Filter::default() };
        assert_eq!(found("a", &db).unwrap(), "a2");
        for wrong in ["", "newest", "latest~", "latest~x", "latest-1"] {
            assert_eq!(Reference::parse(wrong).unwrap_err().kind(), ErrorKind::Usage, "{wrong}");
        }
    }

    #[test]
    fn tags_of_one_list_are_all_needed_and_one_list_is_enough() {
        let tags = |lists: &[&[&str]]| Filter {
            tags: lists.iter().map(|list| list.iter().map(|&tag| tag.to_owned()).collect()).collect(),
            ..Filter::default()
        };
        let passing = |filter: &Filter| all().iter().filter(|known| filter.matches(known)).count();
        assert_eq!(passing(&tags(&[&["daily", "dump"]])), 1);
        assert_eq!(passing(&tags(&[&["daily"], &["dump"]])), 3);
    }

    #[test]
    fn a_place_is_a_snapshot_and_a_path_in_it() {
        let place = Place::parse(b"latest:/srv//data/").unwrap();
        assert_eq!(place, Place { reference: Reference::Latest(0), path: b"srv/data".to_vec() });
        assert_eq!(Place::parse(b"ab:a:\xff").unwrap().path, b"a:\xff");
        assert_eq!(Place::parse(b"latest").unwrap().path, b"");
        assert_eq!(Place::parse(b"latest:/").unwrap().path, b"");
        assert_eq!(Place::parse(b"latest:/a/../b").unwrap_err().kind(), ErrorKind::Usage);
    }

    #[test]
    fn the_last_of_each_group_is_of_each_host_and_its_sources() {
        let ids = |count| {
            let kept = last_of_each_group(all(), count);
            kept.iter().map(|known| known.name.id.as_bytes()[0]).collect::<Vec<_>>()
        };
        assert_eq!(ids(1), [0xa2, 0xb3, 0xb4]);
        assert_eq!(ids(2), [0xa1, 0xa2, 0xb3, 0xb4]);
        assert_eq!(ids(0), [0; 0]);
    }
}
