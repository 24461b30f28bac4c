//! What was said of snapshots later: tags, and legal holds. A snapshot itself never changes.

use minicbor::{Decode, Encode};

use super::forgotten::SNAPSHOTS_MAX;
use crate::{
    clock::Timestamp,
    error::{Error, Result},
    id::ObjectId,
    limits,
};

/// What was said of snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// When, by the writer's clock, and later than every annotation that the writer saw, if one of [`LATEST`] was not
    /// among them: so they have an order that depends on no clock.
    pub time: Timestamp,
    /// Of which snapshots.
    pub snapshots: Vec<ObjectId>,
    /// What.
    pub says: Says,
}

/// What an annotation says; it says one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Says {
    /// Their tags are others.
    Tags(TagChange),
    /// They must not end, and why.
    Hold(String),
    /// These holds do not count for them any more, and why. Each is named, so that no later one is meant.
    Lift(Vec<ObjectId>, String),
}

/// How the tags of snapshots change, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TagChange {
    /// They have these and no others.
    pub set: Option<Vec<String>>,
    /// They have these too.
    pub add: Vec<String>,
    /// They have these no more.
    pub remove: Vec<String>,
}

impl TagChange {
    /// What the tags are afterwards. Their order stays; none is there twice.
    pub fn apply(&self, tags: &mut Vec<String>) {
        if let Some(set) = &self.set {
            tags.clone_from(set);
        }
        for tag in &self.add {
            if !tags.contains(tag) {
                tags.push(tag.clone());
            }
        }
        tags.retain(|tag| !self.remove.contains(tag));
    }

    fn lists(&self) -> impl Iterator<Item = &Vec<String>> {
        self.set.iter().chain([&self.add, &self.remove])
    }
}

/// Most tags in one list of an annotation.
pub const TAGS_MAX: usize = 256;
/// Most holds that one annotation lifts.
pub const HOLDS_MAX: usize = 1 << 12;
/// The end of the year 9999: none is later.
pub const LATEST: Timestamp = Timestamp { seconds: 253_402_300_799, nanoseconds: 999_999_999 };

/// As it stands in the object.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Fields {
    #[n(0)]
    time: Timestamp,
    #[n(1)]
    snapshots: Vec<ObjectId>,
    #[n(2)]
    set: Option<Vec<String>>,
    #[n(3)]
    add: Option<Vec<String>>,
    #[n(4)]
    remove: Option<Vec<String>>,
    #[n(5)]
    reason: Option<String>,
    #[n(6)]
    lifts: Option<Vec<ObjectId>>,
}

impl Annotation {
    /// The plaintext.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let Self { time, snapshots, says } = self.clone();
        let some = |list: Vec<String>| (!list.is_empty()).then_some(list);
        let nothing =
            Fields { time, snapshots, set: None, add: None, remove: None, reason: None, lifts: None };
        super::encode_record(&match says {
            Says::Tags(TagChange { set, add, remove }) => {
                Fields { set, add: some(add), remove: some(remove), ..nothing }
            }
            Says::Hold(reason) => Fields { reason: Some(reason), ..nothing },
            Says::Lift(lifts, reason) => Fields { reason: Some(reason), lifts: Some(lifts), ..nothing },
        })
    }

    /// # Errors
    /// `Damaged` when it is not an annotation, says more than one thing, or is a larger one than may be.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let damaged = |why: &str| Error::damaged("an annotation", why);
        let Fields { time, snapshots, set, add, remove, reason, lifts } =
            super::decode_record(bytes, "an annotation")?;
        let changes = set.is_some() || add.is_some() || remove.is_some();
        let says = match (reason, lifts) {
            (None, None) => Says::Tags(TagChange {
                set,
                add: add.unwrap_or_default(),
                remove: remove.unwrap_or_default(),
            }),
            (Some(reason), None) if !changes => Says::Hold(reason),
            (Some(reason), Some(lifts)) if !changes => Says::Lift(lifts, reason),
            _ => return Err(damaged("it says more than one thing")),
        };
        let too_large = match &says {
            Says::Tags(change) => change.lists().any(|list| !are_tags(list)),
            Says::Hold(reason) => reason.len() > limits::REASON_BYTES_MAX,
            Says::Lift(lifts, reason) => lifts.len() > HOLDS_MAX || reason.len() > limits::REASON_BYTES_MAX,
        };
        if too_large || snapshots.len() > SNAPSHOTS_MAX || time > LATEST {
            return Err(damaged("it is larger than any may be"));
        }
        Ok(Self { time, snapshots, says })
    }
}

/// Whether they are as many and as long as they may be.
fn are_tags(list: &[String]) -> bool {
    list.len() <= TAGS_MAX && list.iter().all(|tag| tag.len() <= limits::TAG_BYTES_MAX)
}
