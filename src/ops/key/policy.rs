//! The storage policy that goes with a role: what its credentials may do, and no more.

use serde_json::{Value, json};

use crate::{
    format::role::Role,
    id::{DomainId, IdentityId},
    store::Store,
};

/// Whose policy it is.
#[derive(Clone, Copy, Debug)]
pub struct PolicyOptions<'a> {
    /// The role.
    pub role: Role,
    /// The domain of a backup role.
    pub domain: Option<DomainId>,
    /// The identity.
    pub identity: IdentityId,
    /// Its slot; without one all slots can be read, which are sealed.
    pub slot: Option<&'a str>,
    /// The bucket.
    pub bucket: &'a str,
    /// The prefix of the repository in it; may be empty.
    pub prefix: &'a str,
}

/// An S3 policy as JSON. For backup, Get and List end at its own domain; for all others they cover the
/// repository. Everybody but a client may add to the evidence in their own name; a restore identity also what it
/// attests. Without that its records stay on its disk.
#[must_use]
pub fn policy(options: &PolicyOptions<'_>) -> String {
    let PolicyOptions { role, domain, identity, slot, bucket, prefix } = *options;
    // In a key there is no `*`, `?` or `{` then, which a policy would take for more than the prefix.
    let prefix = Store::prefix_of_keys(prefix);
    let root = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
    let objects = |names: &[String]| -> Vec<String> {
        names.iter().map(|name| format!("arn:aws:s3:::{bucket}/{root}{name}")).collect()
    };
    let own = domain.map_or_else(|| "d/*".to_owned(), |domain| format!("d/{domain}"));
    let own_slot = slot.map_or_else(|| "keys/*".to_owned(), |slot| format!("keys/{slot}"));
    // In a domain that several share, nobody writes into another's chain.
    let below = ["index", "snapshots", "runs"].map(|folder| format!("{own}/{folder}/{identity}/*"));
    let evidence = format!("evidence/{identity}/*");
    let (get, list) = match role {
        Role::Backup => (
            vec!["config".to_owned(), "registry/*".to_owned(), own_slot, format!("{own}/*")],
            vec!["registry/*".to_owned(), format!("{own}/*")],
        ),
        _ => (vec!["*".to_owned()], vec!["*".to_owned()]),
    };
    let put = match role {
        Role::Backup => [format!("{own}/packs/*")].into_iter().chain(below).collect(),
        Role::Audit => vec![evidence],
        Role::Restore => vec!["d/*/attestations/*".to_owned(), "d/*/annotations/*".to_owned(), evidence],
        Role::Maintain => vec!["d/*".to_owned(), evidence],
        Role::Owner => vec!["*".to_owned()],
    };
    let delete = match role {
        Role::Backup | Role::Audit | Role::Restore => Vec::new(),
        Role::Maintain => vec!["d/*".to_owned()],
        Role::Owner => vec!["*".to_owned()],
    };
    let mut statements: Vec<Value> = Vec::new();
    let mut allow = |action: &[&str], names: &[String]| {
        if !names.is_empty() {
            statements.push(json!({"Effect": "Allow", "Action": action, "Resource": objects(names)}));
        }
    };
    // An old version of a slot opens with the passphrase that it had: those are not for everybody.
    let past = role == Role::Owner;
    allow(if past { &["s3:GetObject", "s3:GetObjectVersion"] } else { &["s3:GetObject"] }, &get);
    allow(&["s3:PutObject"], &put);
    allow(&["s3:DeleteObject"], &delete);
    let this = [format!("arn:aws:s3:::{bucket}")];
    let lists = if past { &["s3:ListBucket", "s3:ListBucketVersions"][..] } else { &["s3:ListBucket"] };
    let mut listing = json!({"Effect": "Allow", "Action": lists, "Resource": this});
    let prefixes: Vec<String> = list.iter().map(|name| format!("{root}{name}")).collect();
    if prefixes != ["*"] {
        listing["Condition"] = json!({"StringLike": {"s3:prefix": prefixes}});
    }
    statements.push(listing);
    if past {
        statements.push(json!({"Effect": "Allow", "Action": ["s3:GetBucketVersioning"], "Resource": this}));
    }
    let policy = json!({"Version": "2012-10-17", "Statement": statements});
    let text = serde_json::to_string_pretty(&policy);
    text.unwrap_or_else(|error| unreachable!("text is always JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(options: &PolicyOptions<'_>, action: &str) -> Vec<String> {
        let policy: Value = serde_json::from_str(&policy(options)).unwrap();
        let statements = policy["Statement"].as_array().unwrap().clone();
        let matching = statements.into_iter().filter(|statement| statement["Action"][0] == action);
        let resources = matching.flat_map(|statement| statement["Resource"].as_array().unwrap().clone());
        resources.map(|resource| resource.as_str().unwrap().to_owned()).collect()
    }

    fn options(role: Role) -> PolicyOptions<'static> {
        let domain = (role == Role::Backup).then(|| DomainId::new([0xab; 8]));
        let identity = IdentityId::new([0xcd; 16]);
        PolicyOptions { role, domain, identity, slot: Some("one-slot"), bucket: "b", prefix: "/p/" }
    }

    #[test]
    fn a_backup_role_is_confined_to_its_domain_and_only_maintain_and_owner_delete() {
        let backup = options(Role::Backup);
        for put in resources(&backup, "s3:PutObject") {
            assert!(put.starts_with("arn:aws:s3:::b/p/d/abababababababab/"), "{put}");
        }
        assert_eq!(resources(&backup, "s3:PutObject").len(), 4);
        let own = IdentityId::new([0xcd; 16]).to_string();
        for put in resources(&backup, "s3:PutObject") {
            assert!(put.contains("/packs/") || put.ends_with(&format!("/{own}/*")), "{put}");
        }
        assert!(resources(&backup, "s3:GetObject").contains(&"arn:aws:s3:::b/p/keys/one-slot".to_owned()));
        assert!(!resources(&backup, "s3:GetObject").contains(&"arn:aws:s3:::b/p/*".to_owned()));
        assert!(policy(&backup).contains("s3:prefix"));
        for role in Role::ALL {
            let deletes = !resources(&options(role), "s3:DeleteObject").is_empty();
            assert_eq!(deletes, matches!(role, Role::Maintain | Role::Owner), "{role:?}");
        }
        for role in Role::ALL {
            for right in ["s3:GetObjectVersion", "s3:ListBucketVersions", "s3:GetBucketVersioning"] {
                assert_eq!(policy(&options(role)).contains(right), role == Role::Owner, "{role:?} {right}");
            }
        }
        let evidence = format!("arn:aws:s3:::b/p/evidence/{own}/*");
        assert_eq!(resources(&options(Role::Maintain), "s3:PutObject"), ["arn:aws:s3:::b/p/d/*", &evidence]);
        assert_eq!(resources(&options(Role::Audit), "s3:PutObject"), [evidence]);
        let whole = PolicyOptions { prefix: "", ..options(Role::Owner) };
        assert_eq!(resources(&whole, "s3:PutObject"), ["arn:aws:s3:::b/*"]);
    }

    #[test]
    fn a_prefix_of_wildcards_and_variables_allows_no_more_than_a_plain_one() {
        for role in Role::ALL {
            let (plain, odd) =
                (policy(&options(role)), policy(&PolicyOptions { prefix: "a*b?/${c}", ..options(role) }));
            assert_eq!(odd.matches(['*', '?', '{']).count(), plain.matches(['*', '?', '{']).count(), "{odd}");
            assert_eq!(odd.replace("a%2Ab%3F/$%7Bc%7D/", "p/"), plain);
        }
    }
}
