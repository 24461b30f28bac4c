//! What was said of snapshots later: their tags, and which of them must not end. Promise: what may be a legal hold is
//! one. An annotation that cannot be read is told to whoever deletes, as an error.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use super::{Repository, records::Found, snapshots::KnownSnapshot};
use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    format::{
        annotation::{Annotation, LATEST, Says, TagChange},
        role::Role,
    },
    id::{DomainId, IdentityId, ObjectId},
    store::{Folder, Name},
};

/// A legal hold on a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The annotation that says so.
    pub id: ObjectId,
    /// When it was placed, by the clock of whoever did.
    pub time: Timestamp,
    /// Who did.
    pub by: IdentityId,
    /// Why.
    pub reason: String,
}

/// What was said of the snapshots of a domain.
#[derive(Debug, Default)]
pub struct Annotations {
    /// How the tags of each changed, the first first.
    tags: HashMap<ObjectId, Vec<Arc<TagChange>>>,
    /// The holds on each that count, the first first.
    holds: HashMap<ObjectId, Vec<Arc<Hold>>>,
    /// When the last of them was written, by what they say themselves.
    newest: Option<Timestamp>,
    /// Annotations that do not count, and why.
    pub ignored: Vec<Error>,
    /// Annotations that may count and cannot be read: any of them may be a hold.
    pub doubts: Vec<Error>,
}

impl Annotations {
    /// Why a snapshot must not end.
    #[must_use]
    pub fn holds(&self, snapshot: &ObjectId) -> &[Arc<Hold>] {
        self.holds.get(snapshot).map_or(&[], Vec::as_slice)
    }

    /// Whether a snapshot must not end.
    #[must_use]
    pub fn is_held(&self, snapshot: &ObjectId) -> bool {
        !self.holds(snapshot).is_empty()
    }

    /// Every hold that counts, the first first, each with its snapshots.
    #[must_use]
    pub fn all_holds(&self) -> Vec<(Arc<Hold>, Vec<ObjectId>)> {
        let mut all: BTreeMap<(Timestamp, ObjectId), (Arc<Hold>, Vec<ObjectId>)> = BTreeMap::new();
        for (snapshot, holds) in &self.holds {
            for hold in holds {
                let of_hold =
                    all.entry((hold.time, hold.id)).or_insert_with(|| (Arc::clone(hold), Vec::new()));
                of_hold.1.push(*snapshot);
            }
        }
        let mut all: Vec<_> = all.into_values().collect();
        all.iter_mut().for_each(|(_, snapshots)| snapshots.sort_unstable());
        all
    }

    /// For whoever deletes.
    ///
    /// # Errors
    /// Something may be a hold, and cannot be read.
    pub fn check(&mut self) -> Result<()> {
        if self.doubts.is_empty() { Ok(()) } else { Err(self.doubts.swap_remove(0)) }
    }

    /// A time for the next annotation: later than each that is there, whatever a clock says. Behind one of the last
    /// moment that there is nothing is later: then it is that one, for a thief's clock must not keep a hold from being
    /// placed; which of the two counts for tags is left to their ids.
    #[must_use]
    pub fn next_time(&self, now: Timestamp) -> Timestamp {
        let after = |last: Timestamp| match last.nanoseconds {
            nanoseconds @ 0..999_999_999 => Timestamp { nanoseconds: nanoseconds + 1, ..last },
            _ => Timestamp::from_seconds(last.seconds.saturating_add(1)),
        };
        self.newest.map_or(now, |last| now.max(after(last))).min(LATEST)
    }

    /// Puts into a snapshot what was said of it.
    pub(super) fn annotate(&self, known: &mut KnownSnapshot) {
        for change in self.tags.get(&known.name.id).into_iter().flatten() {
            change.apply(&mut known.tags);
        }
        known.holds = self.holds(&known.name.id).to_vec();
    }
}

/// An annotation that counts.
struct Said {
    name: Name,
    annotation: Annotation,
    id: ObjectId,
    by: IdentityId,
}

/// Who may say what: whoever may delete may change tags, since rules go by them; whoever reads everything may place
/// a hold; and only an owner lifts one, not the machine that forgets every night.
const fn may_say(role: Role, says: &Says) -> bool {
    match says {
        Says::Tags(_) => matches!(role, Role::Maintain | Role::Owner),
        Says::Hold(_) => matches!(role, Role::Maintain | Role::Restore | Role::Owner),
        Says::Lift(..) => matches!(role, Role::Owner),
    }
}

/// What to do about an annotation that nobody can read.
fn set_aside(name: &Name) -> String {
    format!(
        "It may be a legal hold, so nothing ends until it can be read. If it is lost for good, place the holds again that \
         you know of, then `lifeboat repair quarantine {name} --apply`"
    )
}

impl Repository {
    /// Whether this identity may say this of snapshots.
    ///
    /// # Errors
    /// `Forbidden` when not.
    pub fn check_right_to_say(&self, says: &Says) -> Result<()> {
        if may_say(self.role(), says) {
            return Ok(());
        }
        let (what, least) = match says {
            Says::Tags(_) => ("change tags", "maintain"),
            Says::Hold(_) => ("place a legal hold", "maintain or restore"),
            Says::Lift(..) => ("lift a legal hold", "owner"),
        };
        Err(self.forbidden(what, least))
    }

    /// What was said of the snapshots of a domain. Whoever deletes asks after the forgotten records were read: so of a
    /// hold that is placed and a snapshot that is forgotten at once, one is seen by the other.
    ///
    /// # Errors
    /// Storage trouble.
    pub fn annotations(&self, domain: &DomainId, quarantined: &HashSet<String>) -> Result<Annotations> {
        let mut all = Annotations::default();
        let mut found = self.said(domain, quarantined, &mut all)?;
        found.sort_by_key(|said| (said.annotation.time, said.id));
        all.merge(found);
        Ok(all)
    }

    /// The annotations that count and speak of nothing but snapshots that are gone. A lift may go before the hold that
    /// it lifts: what is gone is not held.
    ///
    /// # Errors
    /// Storage trouble.
    pub fn annotations_of_gone(
        &self,
        domain: &DomainId,
        quarantined: &HashSet<String>,
        is_gone: impl Fn(&ObjectId) -> bool,
    ) -> Result<Vec<Name>> {
        let mut found = self.said(domain, quarantined, &mut Annotations::default())?;
        found.retain(|said| said.annotation.snapshots.iter().all(&is_gone));
        Ok(found.into_iter().map(|said| said.name).collect())
    }

    /// Every annotation that counts. What does not, or may and cannot be read, is told in `all`.
    fn said(
        &self,
        domain: &DomainId,
        quarantined: &HashSet<String>,
        all: &mut Annotations,
    ) -> Result<Vec<Said>> {
        let mut found = Vec::new();
        for (name, id, record) in self.read_records(domain, Folder::Annotations, quarantined)? {
            let decoded = match record {
                Found::Counts(plain, who) => {
                    Annotation::decode(&plain).map(|said| (who, said)).map_err(|error| error.context(&name))
                }
                Found::Ignored(error) => {
                    all.ignored.push(error);
                    continue;
                }
                Found::Unknown(error) | Found::Damaged(error) => Err(error),
            };
            match decoded {
                Ok(((by, role), said)) if may_say(role, &said.says) => {
                    found.push(Said { name, annotation: said, id, by })
                }
                Ok(((_, role), _)) => {
                    let why = format!("a key with the role {} may not say this", role.name());
                    all.ignored.push(Error::damaged(&name, why));
                }
                // It is fine, as far as this key can tell.
                Err(error) if error.kind() == ErrorKind::Forbidden => all.doubts.push(error),
                Err(error) => all.doubts.push(error.with_remedy(set_aside(&name))),
            }
        }
        Ok(found)
    }
}

impl Annotations {
    /// In the order of their times; what one lifts is named by its id, and no order is needed for it.
    fn merge(&mut self, found: Vec<Said>) {
        self.newest = found.last().map(|said| said.annotation.time);
        let mut lifts: HashMap<ObjectId, Vec<Arc<HashSet<ObjectId>>>> = HashMap::new();
        for Annotation { snapshots, says, .. } in found.iter().map(|said| &said.annotation) {
            if let Says::Lift(holds, _) = says {
                let snapshots: Arc<HashSet<ObjectId>> = Arc::new(snapshots.iter().copied().collect());
                for hold in holds {
                    lifts.entry(*hold).or_default().push(Arc::clone(&snapshots));
                }
            }
        }
        let is_lifted = |hold: &ObjectId, snapshot: &ObjectId| {
            lifts.get(hold).is_some_and(|lifts| lifts.iter().any(|snapshots| snapshots.contains(snapshot)))
        };
        for Said { name: _, annotation: Annotation { time, snapshots, says }, id, by } in found {
            match says {
                Says::Tags(change) => {
                    let change = Arc::new(change);
                    for snapshot in snapshots {
                        self.tags.entry(snapshot).or_default().push(Arc::clone(&change));
                    }
                }
                Says::Hold(reason) => {
                    let hold = Arc::new(Hold { id, time, by, reason });
                    for snapshot in snapshots.into_iter().filter(|snapshot| !is_lifted(&id, snapshot)) {
                        let holds = self.holds.entry(snapshot).or_default();
                        if holds.last().is_none_or(|last| last.id != id) {
                            holds.push(Arc::clone(&hold));
                        }
                    }
                }
                Says::Lift(..) => {}
            }
        }
    }
}
