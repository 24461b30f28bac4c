//! One answer to `GET ?versions`: a page of versions and delete markers, by key; those of one key in the order of the
//! storage. Every byte of it is hostile: what stands in it is checked here, and nothing else is taken from it.

use quick_xml::{Reader, escape::resolve_predefined_entity, events::Event};

use crate::clock::Timestamp;

/// The longest answer that is read, in bytes. A thousand versions of the longest keys take less than half of it.
pub(super) const PAGE_BYTES_MAX: usize = 8 << 20;
/// The longest key and the longest id of a version, in bytes: S3's own limit.
const NAME_BYTES_MAX: usize = 1024;
/// Entries of a page: S3 sends a thousand.
const ENTRIES_MAX: usize = 10_000;
/// Elements in elements; S3 needs four.
const DEPTH_MAX: usize = 8;
/// What S3 calls the list.
const ROOT: &str = "ListVersionsResult";
/// What S3 calls the answer to `GET ?versioning`.
const CONFIGURATION: &[u8] = b"VersioningConfiguration";

/// Why a page cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is another answer: the storage does not know the question.
    Other,
    /// It is broken, perhaps on its way.
    Broken(String),
}

/// What became of a key at some time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) key: String,
    /// The id of the version.
    pub(super) version: String,
    /// By the storage's own clock.
    pub(super) modified: Timestamp,
    /// Bytes; `None` for a delete marker.
    pub(super) size: Option<u64>,
    /// Nothing came after it yet.
    pub(super) latest: bool,
}

/// Where the next page begins: a key, and a version of it.
pub(super) type Marker = (String, Option<String>);

#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) entries: Vec<Entry>,
    pub(super) next: Option<Marker>,
}

/// The texts that count of one element.
#[derive(Default)]
struct Fields {
    key: Option<String>,
    version: Option<String>,
    modified: Option<String>,
    size: Option<String>,
    latest: Option<String>,
}

/// The texts that count of the whole page, as they came.
#[derive(Default)]
struct Draft {
    begun: bool,
    entries: Vec<(Fields, bool)>,
    encoding: Option<String>,
    truncated: Option<String>,
    next_key: Option<String>,
    next_version: Option<String>,
}

fn broken(why: impl std::fmt::Display) -> Fault {
    Fault::Broken(format!("the list of versions cannot be read: {why}"))
}

/// Reads a page.
pub(super) fn parse(xml: &[u8]) -> Result<Page, Fault> {
    let text = std::str::from_utf8(xml).map_err(broken)?;
    let mut reader = Reader::from_str(text);
    let (mut draft, mut open, mut content) = (Draft::default(), Vec::<String>::new(), String::new());
    loop {
        match reader.read_event().map_err(broken)? {
            Event::Start(element) => {
                begin(&mut open, &element, &mut draft)?;
                content.clear();
            }
            Event::Empty(element) => {
                begin(&mut open, &element, &mut draft)?;
                draft.end(&open, "");
                open.pop();
            }
            Event::End(_) => {
                draft.end(&open, &content);
                content.clear();
                open.pop();
            }
            Event::Text(piece) => content.push_str(&piece.decode().map_err(broken)?),
            Event::CData(piece) => content.push_str(&piece.decode().map_err(broken)?),
            Event::GeneralRef(reference) => match reference.resolve_char_ref().map_err(broken)? {
                Some(character) => content.push(character),
                None => {
                    let name = reference.decode().map_err(broken)?;
                    // No other entity is known to S3, so none can grow.
                    let known = resolve_predefined_entity(&name);
                    content.push_str(known.ok_or_else(|| broken("an entity that nobody knows"))?);
                }
            },
            Event::DocType(_) => return Err(Fault::Other),
            Event::Eof if open.is_empty() && draft.begun => return draft.finish(),
            Event::Eof => return Err(broken("it ends too early")),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
        }
    }
}

/// An element begins.
fn begin(
    open: &mut Vec<String>,
    element: &quick_xml::events::BytesStart<'_>,
    draft: &mut Draft,
) -> Result<(), Fault> {
    let name = element.local_name();
    let name = std::str::from_utf8(name.as_ref()).map_err(broken)?;
    if draft.entries.len() > ENTRIES_MAX {
        return Err(broken("it has too many entries"));
    }
    match open.len() {
        0 if name != ROOT => return Err(Fault::Other),
        1 if name == "Version" => draft.entries.push((Fields::default(), false)),
        1 if name == "DeleteMarker" => draft.entries.push((Fields::default(), true)),
        DEPTH_MAX.. => return Err(broken("its elements are too deep")),
        _ => {}
    }
    draft.begun = true;
    open.push(name.to_owned());
    Ok(())
}

impl Draft {
    /// An element ends that held this text.
    fn end(&mut self, open: &[String], text: &str) {
        let path: Vec<&str> = open.iter().skip(1).map(String::as_str).collect();
        let place = match path[..] {
            ["EncodingType"] => &mut self.encoding,
            ["IsTruncated"] => &mut self.truncated,
            ["NextKeyMarker"] => &mut self.next_key,
            ["NextVersionIdMarker"] => &mut self.next_version,
            ["Version" | "DeleteMarker", field] => {
                let Some((fields, _)) = self.entries.last_mut() else { return };
                match field {
                    "Key" => &mut fields.key,
                    "VersionId" => &mut fields.version,
                    "LastModified" => &mut fields.modified,
                    "Size" => &mut fields.size,
                    "IsLatest" => &mut fields.latest,
                    _ => return,
                }
            }
            _ => return,
        };
        *place = Some(text.to_owned());
    }

    fn finish(self) -> Result<Page, Fault> {
        let Self { begun: _, entries, encoding, truncated, next_key, next_version } = self;
        let url = encoding.as_deref().map(str::trim) == Some("url");
        let name = |text: String| if url { decoded(&text) } else { Ok(text) }.and_then(short);
        let entry = |(fields, marker): (Fields, bool)| {
            let Fields { key, version, modified, size, latest } = fields;
            let modified = modified.as_deref().and_then(|text| Timestamp::from_rfc3339(text.trim()));
            let size = size.and_then(|text| text.trim().parse().ok());
            Ok(Entry {
                key: name(key.ok_or_else(|| broken("a version has no key"))?)?,
                // Some storages leave it out where versioning was never on.
                version: short(version.filter(|id| !id.is_empty()).unwrap_or_else(|| "null".to_owned()))?,
                modified: modified.ok_or_else(|| broken("a version has no time"))?,
                size: match marker {
                    true => None,
                    false => Some(size.ok_or_else(|| broken("a version has no size"))?),
                },
                latest: latest.as_deref().map(str::trim) == Some("true"),
            })
        };
        let mut entries = entries.into_iter().map(entry).collect::<Result<Vec<Entry>, Fault>>()?;
        // Some storages list all versions of a page, and then all markers.
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        let next = match truncated.as_deref().map(str::trim) {
            Some("true") => {
                let key = next_key.ok_or_else(|| broken("it goes on, and does not say where"))?;
                Some((name(key)?, next_version.filter(|id| !id.is_empty()).map(short).transpose()?))
            }
            Some("false") | None => None,
            Some(_) => return Err(broken("it does not say whether it goes on")),
        };
        Ok(Page { entries, next })
    }
}

fn short(name: String) -> Result<String, Fault> {
    if name.len() > NAME_BYTES_MAX { Err(broken("a name is too long")) } else { Ok(name) }
}

/// Undoes `encoding-type=url`, which has `+` for a space.
fn decoded(text: &str) -> Result<String, Fault> {
    let digit = |byte: Option<u8>| u8::try_from(char::from(byte?).to_digit(16)?).ok();
    let (mut plain, mut bytes) = (Vec::with_capacity(text.len()), text.bytes());
    while let Some(byte) = bytes.next() {
        plain.push(match byte {
            b'+' => b' ',
            b'%' => {
                let (high, low) = (digit(bytes.next()), digit(bytes.next()));
                let (high, low) = high.zip(low).ok_or_else(|| broken("a name is not encoded"))?;
                high * 16 + low
            }
            other => other,
        });
    }
    String::from_utf8(plain).map_err(broken)
}

/// Whether a bucket keeps versions, from the answer to `GET ?versioning`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Versioning {
    /// It keeps all.
    On,
    /// It kept them once.
    Suspended,
    /// It never did.
    Off,
}

/// Reads what `GET ?versioning` says.
pub(super) fn versioning(xml: &[u8]) -> Result<Versioning, Fault> {
    let text = std::str::from_utf8(xml).map_err(broken)?;
    let mut reader = Reader::from_str(text);
    let (mut depth, mut inside, mut kept) = (0, false, None);
    loop {
        match reader.read_event().map_err(broken)? {
            Event::Start(element) => {
                let name = element.local_name();
                match depth {
                    0 if name.as_ref() == CONFIGURATION => kept = Some(Versioning::Off),
                    0 => return Err(Fault::Other),
                    _ => {}
                }
                inside = depth == 1 && name.as_ref() == b"Status";
                depth += 1;
            }
            Event::Empty(element) if depth == 0 => match element.local_name().as_ref() {
                CONFIGURATION => kept = Some(Versioning::Off),
                _ => return Err(Fault::Other),
            },
            Event::End(_) => (depth, inside) = (depth - 1, false),
            Event::Text(status) if inside => match status.decode().map_err(broken)?.trim() {
                "Enabled" => kept = Some(Versioning::On),
                "Suspended" => kept = Some(Versioning::Suspended),
                _ => {}
            },
            Event::Eof if depth == 0 => return kept.ok_or_else(|| broken("it is empty")),
            Event::Eof => return Err(broken("it ends too early")),
            Event::DocType(_) => return Err(Fault::Other),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(inner: &str) -> Result<Page, Fault> {
        parse(format!("<?xml version=\"1.0\"?><{ROOT} xmlns=\"http://x/\">{inner}</{ROOT}>").as_bytes())
    }

    fn version(key: &str, id: &str) -> String {
        format!(
            "<Version><ETag>&quot;x&quot;</ETag><IsLatest>true</IsLatest><Key>{key}</Key><Size>7</Size>\
             <LastModified>2026-11-20T03:00:00.000Z</LastModified><Owner><ID>1</ID><Key>no</Key></Owner>\
             <VersionId>{id}</VersionId></Version>"
        )
    }

    #[test]
    fn a_page_has_versions_and_markers_in_the_order_of_the_storage() {
        let marker = "<DeleteMarker><Key>a</Key><VersionId>2</VersionId>\
                      <LastModified>2026-11-20T04:00:00Z</LastModified></DeleteMarker>";
        let inner = format!(
            "<Name>b</Name><Prefix/><NextKeyMarker>a&amp;&#98;</NextKeyMarker><NextVersionIdMarker>1\
             </NextVersionIdMarker><IsTruncated>true</IsTruncated>{marker}{}",
            version("<![CDATA[a]]>", "1")
        );
        let page = page(&inner).unwrap();
        assert_eq!(page.next, Some(("a&b".to_owned(), Some("1".to_owned()))));
        let known: Vec<_> = page
            .entries
            .iter()
            .map(|one| (&*one.key, &*one.version, one.modified.seconds, one.size))
            .collect();
        assert_eq!(known, [("a", "2", 1_795_147_200, None), ("a", "1", 1_795_143_600, Some(7))]);
    }

    #[test]
    fn markers_that_come_after_all_versions_are_sorted_in() {
        let marker = "<DeleteMarker><IsLatest>true</IsLatest><Key>a</Key><VersionId>m</VersionId>\
                      <LastModified>2026-11-20T04:00:00Z</LastModified></DeleteMarker>";
        let page =
            page(&[&version("a", "2"), &version("a", "1"), &version("b", "1"), marker].concat()).unwrap();
        let known: Vec<_> = page.entries.iter().map(|one| format!("{}{}", one.key, one.version)).collect();
        assert_eq!(known, ["a2", "a1", "am", "b1"]);
    }

    #[test]
    fn names_are_decoded_where_the_page_says_that_they_are_encoded() {
        let encoded = version("a+b%2Bc%E2%82%AC%01", "1");
        let url = "<EncodingType>url</EncodingType>";
        assert_eq!(page(&(encoded.clone() + url)).unwrap().entries[0].key, "a b+c\u{20ac}\u{1}");
        assert_eq!(page(&encoded).unwrap().entries[0].key, "a+b%2Bc%E2%82%AC%01");
        for wrong in ["%", "%4", "%xy", "%ff"] {
            assert!(page(&(version(wrong, "1") + url)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_hostile_page_is_an_error_and_costs_no_more_than_its_bytes() {
        let long = "k".repeat(NAME_BYTES_MAX + 1);
        let deep = "<a>".repeat(100_000);
        let key = version("a", "1");
        for wrong in [
            version(&long, "1"),
            version("a", &long),
            version("&bomb;", "1"),
            version("a", "1").replace("<Size>7", "<Size>-7"),
            version("a", "1").replace("2026", "20x6"),
            version("a", "1").replace("<Size>7</Size>", ""),
            version("a", "1").replace("<Key>a</Key>", ""),
            "<IsTruncated>true</IsTruncated>".to_owned(),
            "<IsTruncated>perhaps</IsTruncated>".to_owned(),
            deep,
            version("a", "1").repeat(ENTRIES_MAX + 1),
            "<Version/>".repeat(PAGE_BYTES_MAX / 16),
        ] {
            assert!(matches!(page(&wrong), Err(Fault::Broken(_))), "{:.60}", wrong);
        }
        for cut in 0..key.len() {
            let cut = format!("<{ROOT}>{}", &key.get(..cut).unwrap());
            assert!(matches!(parse(cut.as_bytes()), Err(Fault::Broken(_))), "{cut}");
        }
        let entities = format!("<!DOCTYPE x [<!ENTITY a \"aaaa\">]><{ROOT}>&a;</{ROOT}>");
        let others = ["<ListBucketResult></ListBucketResult>", "<html/>", &entities];
        others.iter().for_each(|other| assert_eq!(parse(other.as_bytes()), Err(Fault::Other), "{other}"));
        assert!(parse(b"\xff\xfe").is_err() && page("").unwrap() == Page::default());
        assert!(parse(b"").is_err() && parse(b"all is well").is_err(), "no answer is not an empty bucket");
    }

    #[test]
    fn a_bucket_says_whether_it_keeps_versions() {
        let told = |status: &str| {
            let text = format!("<VersioningConfiguration xmlns=\"x\">{status}</VersioningConfiguration>");
            versioning(text.as_bytes()).unwrap()
        };
        assert_eq!(told("<Status>Enabled</Status><MfaDelete>Disabled</MfaDelete>"), Versioning::On);
        assert_eq!(told("<MFADelete>Enabled</MFADelete><Status>Suspended</Status>"), Versioning::Suspended);
        assert_eq!(told(""), Versioning::Off);
        assert_eq!(versioning(b"<VersioningConfiguration/>"), Ok(Versioning::Off));
        assert_eq!(versioning(b"<html><Status>Enabled</Status></html>"), Err(Fault::Other));
        assert!(versioning(b"").is_err() && versioning(b"<VersioningConfiguration>").is_err());
    }
}
