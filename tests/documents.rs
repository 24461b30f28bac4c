//! `docs/testing.md` and `docs/threat-model.md` name a test for what they say, and the tests that they name exist.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::{fs, path::Path};

/// What stands between backticks outside of blocks of code.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Whether a test of that name stands in the file: a function with `#[test]` above it.
fn is_test(file: &Path, name: &str) -> bool {
    let text = fs::read_to_string(file).unwrap_or_default();
    let begins = format!("fn {name}()");
    let Some((before, _)) = text.split_once(&begins) else { return false };
    let tail = before.rsplit("\n\n").next().unwrap();
    tail.contains("#[test]") || tail.contains("#[tokio::test")
}

/// The file and the test that a reference such as `crash::name` or `src/id.rs::name` stands for.
fn reference(text: &str) -> Option<(String, &str)> {
    let (file, name) = text.rsplit_once("::")?;
    let file = if file.starts_with("src/") { file.to_owned() } else { format!("tests/{file}.rs") };
    Some((file, name))
}

/// A file of the project that is named because it is a test by itself.
fn is_program(text: &str) -> bool {
    [".ci/", "fuzz/", "tests/", "benches/"].iter().any(|folder| text.starts_with(folder))
}

/// The references of a text that lead nowhere, and how many there are in all.
fn dangling(text: &str) -> (Vec<&str>, usize) {
    let (mut lost, mut count) = (Vec::new(), 0);
    for quote in quoted(text) {
        let found = match reference(quote) {
            Some((file, name)) => is_test(Path::new(&file), name),
            None if is_program(quote) => Path::new(quote).try_exists().unwrap(),
            None => continue,
        };
        count += 1;
        if !found {
            lost.push(quote);
        }
    }
    (lost, count)
}

#[test]
fn every_test_that_a_page_names_exists() {
    for page in ["docs/testing.md", "docs/threat-model.md"] {
        let text = fs::read_to_string(page).unwrap();
        let (lost, count) = dangling(&text);
        assert!(lost.is_empty(), "{page} names tests that do not exist: {lost:#?}");
        assert!(count > 40, "{page} names {count} tests");
    }
}

#[test]
fn every_claim_of_the_threat_model_names_a_test() {
    let text = fs::read_to_string("docs/threat-model.md").unwrap();
    let claims: Vec<&str> = text.split("\n- ").skip(1).collect();
    assert!(claims.len() > 30, "{}", claims.len());
    for claim in claims {
        let claim = claim.split("\n\n").next().unwrap();
        assert!(dangling(claim).1 > 0, "no test stands behind this: {claim}");
    }
}

#[test]
fn every_line_of_the_list_of_tests_says_where_or_that_it_is_missing() {
    let text = fs::read_to_string("docs/testing.md").unwrap();
    let rows: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with("| ") && line.as_bytes()[2].is_ascii_digit())
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    let numbers: Vec<usize> = rows.iter().map(|row| row[0].parse().unwrap()).collect();
    assert_eq!(numbers, (1..=80).collect::<Vec<_>>());
    for row in rows {
        let held = dangling(row[2]).1 > 0;
        assert!(held || row[2].starts_with("missing"), "line {} says neither: {}", row[0], row[2]);
    }
}

#[test]
fn a_reference_that_leads_nowhere_is_seen() {
    let text = "as `documents::a_reference_that_leads_nowhere_is_seen` and `documents::nothing` and `.ci/nothing` show";
    assert_eq!(dangling(text), (vec!["documents::nothing", ".ci/nothing"], 3));
}
