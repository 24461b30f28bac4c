//! What anybody can check who can read the storage: whether each object is what its name stands for, and
//! whether `config` and the key slots are written as they must be.

use super::{Checked, Subset, objects};
use crate::{
    error::{ErrorKind, Result},
    format::pack::Trailer,
    id::PackId,
    limits,
    progress::Phase,
    repository::random,
    store::{Name, Parsed, Prefix, Store},
};

/// Looks at every object; of packs only at the chosen ones.
///
/// # Errors
/// Storage trouble. Damage is in the result.
pub fn run(store: &Store, subset: Subset) -> Result<Checked> {
    let progress = store.progress();
    progress.enter(Phase::Checking);
    let mut checked = Checked::default();
    let (mut packs, mut others, mut foreign) = (Vec::new(), Vec::new(), 0_u64);
    for listed in store.list(&Prefix::all())? {
        match Name::parse(&listed.name).map(|name| (name.parsed(), name)) {
            Some((Parsed::Pack { id, .. }, name)) => packs.push((id, listed.size, (name, listed.size))),
            Some((_, name)) => others.push((name, listed.size)),
            None => foreign += 1,
        }
    }
    if foreign > 0 {
        checked.note(format!(
            "{foreign} objects have names that this program does not know; they stay as they are"
        ));
    }
    checked.packs = packs.len() as u64;
    let chosen = subset.choose(packs, &random()?);
    progress.expect(0, chosen.iter().chain(&others).map(|(_, size)| size).sum());
    objects::compare(store, others, &mut checked)?;
    for (name, size) in chosen {
        progress.check()?;
        let most = usize::try_from(size).unwrap_or(usize::MAX).min(limits::PACK_BYTES_MAX);
        match store.read(&name, most) {
            Ok(bytes) => {
                let hash = PackId::new(*blake3::hash(&bytes).as_bytes()).to_string();
                if !name.as_str().ends_with(&hash) {
                    checked.problem(name.as_str(), "its bytes are not those that its name stands for");
                    progress.trouble();
                } else if Trailer::decode(&bytes).is_err() {
                    checked.problem(name.as_str(), "it does not end as a pack does");
                    progress.trouble();
                }
                checked.packs_read += 1;
                checked.bytes_read += bytes.len() as u64;
                progress.add(0, bytes.len() as u64);
            }
            Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound) => {
                checked.problem(name.as_str(), error.to_string());
                progress.trouble();
            }
            Err(error) => return Err(error),
        }
    }
    Ok(checked)
}
