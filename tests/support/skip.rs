//! A test that cannot do what it is for on this machine says so, and nobody sees it: cargo hides what is said by a test that
//! passes. So with `LIFEBOAT_TEST_NO_SKIPS` in the environment, as in CI, it fails.

/// What may be left out even then, each with why it cannot be had on a machine like that of CI.
const ALLOWED: &[&str] = &[
    // Its kernel has no `CONFIG_UNICODE`, so no file system that folds case, and neither FAT nor anything else that does.
    "other spellings: no file system here takes two spellings for one name",
];

/// Says that a test, or a part of one, does nothing here. The text says what, and after a colon why.
#[cfg(test)] // It always is; but clippy lets only what says so print.
#[track_caller]
pub(crate) fn skip(why: &str) {
    let must_run = std::env::var_os("LIFEBOAT_TEST_NO_SKIPS").is_some();
    assert!(!must_run || ALLOWED.contains(&why), "this is skipped, and nothing may be: {why}");
    println!("SKIP {why}");
}
