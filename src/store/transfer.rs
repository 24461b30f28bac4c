//! Transfers that must go on, and must be whole.

use std::{fs::File, io, os::unix::fs::FileExt, time::Duration};

use bytes::Bytes;
use futures::StreamExt;
use object_store::{GetResult, GetResultPayload};

use super::{buffers::BUFFERS, failure::Broken};

/// A call in which nothing moves for so long has failed; an upload has the time that its bytes need on top.
pub(super) const STALL: Duration = Duration::from_secs(60);
/// The slowest line that an upload must survive, in bytes per second.
const SLOWEST_LINE: u64 = 16 << 10;
/// How long one upload may take.
pub(super) const fn upload_time(bytes: u64) -> Duration {
    Duration::from_secs(STALL.as_secs() + bytes / SLOWEST_LINE)
}

/// A step that must end within `limit`.
pub(super) async fn within<T>(
    limit: Duration,
    step: impl Future<Output = object_store::Result<T>>,
) -> object_store::Result<T> {
    match tokio::time::timeout(limit, step).await {
        Ok(result) => result,
        Err(_elapsed) => Err(Broken(format!("no answer within {} s", limit.as_secs())).into()),
    }
}

/// The next item of a stream, which must not keep us waiting.
pub(super) async fn next<T>(
    stream: &mut (impl futures::Stream<Item = object_store::Result<T>> + Unpin),
    stall: Duration,
) -> object_store::Result<Option<T>> {
    within(stall, async { stream.next().await.transpose() }).await
}

/// The body of an answer, which must have exactly `size` bytes and must not stall.
pub(super) async fn collect(got: GetResult, size: u64, stall: Duration) -> object_store::Result<Bytes> {
    let mut buffer = BUFFERS.take(usize::try_from(size).unwrap_or(0));
    let came = match got.payload {
        GetResultPayload::File(file, _) => {
            let begin = got.range.start;
            let reading = tokio::task::spawn_blocking(move || {
                read(&file, begin, &mut buffer).map(|came| (came, buffer))
            });
            let read = within(stall, async { Ok(reading.await.map_err(io::Error::other).flatten()) }).await?;
            let came;
            (came, buffer) = read.map_err(|error| object_store::Error::Generic {
                store: "LocalFileSystem",
                source: Box::new(error),
            })?;
            came
        }
        GetResultPayload::Stream(mut pieces) => {
            let mut came = 0;
            while let Some(piece) = next(&mut pieces, stall).await? {
                let end = came + piece.len();
                match buffer.get_mut(came..end) {
                    Some(place) => place.copy_from_slice(&piece),
                    None => {
                        came = end;
                        break;
                    }
                }
                came = end;
            }
            came
        }
    };
    if came as u64 == size {
        Ok(BUFFERS.lend(buffer))
    } else {
        Err(Broken(format!("{came} of {size} bytes came")).into())
    }
}

/// Fills a buffer from a file; how many bytes there were.
fn read(file: &File, begin: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut came = 0;
    while let Some(rest) = buffer.get_mut(came..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, begin + came as u64) {
            Ok(0) => break,
            Ok(bytes) => came += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(came)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the test macro has a runtime of its own")]
mod tests {
    use futures::{future, stream};
    use object_store::{ObjectMeta, path::Path};

    use super::{super::failure::may_pass, *};

    fn body(pieces: impl futures::Stream<Item = object_store::Result<Bytes>> + Send + 'static) -> GetResult {
        let meta = ObjectMeta {
            location: Path::from("x"),
            last_modified: Default::default(),
            size: 4,
            e_tag: None,
            version: None,
        };
        GetResult {
            payload: GetResultPayload::Stream(pieces.boxed()),
            range: 0..4,
            meta,
            attributes: Default::default(),
            extensions: Default::default(),
        }
    }

    const MOMENT: Duration = Duration::from_millis(5);

    #[tokio::test]
    async fn a_transfer_that_stalls_is_given_up_and_may_be_tried_again() {
        let begun = stream::iter([Ok(Bytes::from("ab"))]).chain(stream::pending());
        let error = collect(body(begun), 4, MOMENT).await.unwrap_err();
        assert!(may_pass(&error) && error.to_string().contains("no answer"), "{error}");
        let error = within(MOMENT, future::pending::<object_store::Result<()>>()).await.unwrap_err();
        assert!(may_pass(&error), "{error}");
    }

    #[tokio::test]
    async fn a_body_has_exactly_the_bytes_that_were_promised() {
        let pieces =
            |pieces: &'static [&'static str]| body(stream::iter(pieces.iter().map(|p| Ok((*p).into()))));
        assert_eq!(collect(pieces(&["ab", "cd"]), 4, STALL).await.unwrap(), "abcd");
        for wrong in [&["ab", "c"][..], &["ab", "cd", "e"], &[]] {
            assert!(may_pass(&collect(pieces(wrong), 4, STALL).await.unwrap_err()));
        }
    }

    #[test]
    fn a_large_pack_survives_a_slow_line() {
        assert!(upload_time(64 << 20) > Duration::from_secs((64 << 20) / (16 << 10)));
        assert_eq!(upload_time(0), STALL);
    }
}
