//! One stream as a source of a backup: standard input, or what a command prints. It becomes one file. A
//! stream that breaks off, or a command that fails, fails the whole backup: half a database dump under a
//! good name is worse than none.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use super::{Item, ReadContent, SIZE_UNKNOWN, Source};
use crate::{
    clock::Timestamp,
    error::{Error, ErrorKind, Result},
    format::entry::{Content, Entry, EntryKind, Metadata},
    limits,
    progress::Progress,
};

/// How often a silent stream is looked at.
const GLANCE_NANOSECONDS: i64 = 100_000_000;

/// How the file is called, whose it is and from when.
#[derive(Clone, Debug)]
pub struct StreamFile {
    /// Its path, with or without a leading slash.
    pub path: Vec<u8>,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Its time.
    pub time: Timestamp,
}

enum Input {
    Reader(Box<dyn Read + Send>, Option<OwnedFd>),
    Command(Vec<OsString>, Vec<OsString>),
    Used,
}

/// One stream.
pub struct Stream {
    file: StreamFile,
    input: Input,
    child: Option<(String, Child)>,
    progress: Arc<Progress>,
    broken: Arc<Mutex<Option<Error>>>,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stream({})", String::from_utf8_lossy(&self.file.path))
    }
}

impl Stream {
    /// What a pipe or a file gives.
    ///
    /// # Errors
    /// `Usage` for a path that no file can have; no more files can be open.
    pub fn of_input(file: StreamFile, input: OwnedFd, progress: Arc<Progress>) -> Result<Self> {
        let (reader, handle) = readable(input)?;
        Self::new(file, Input::Reader(reader, Some(handle)), progress)
    }

    /// What a reader gives that never keeps anybody waiting: nothing could stop a backup that waits for it.
    ///
    /// # Errors
    /// `Usage` for a path that no file can have.
    pub fn of_reader(
        file: StreamFile,
        reader: Box<dyn Read + Send>,
        progress: Arc<Progress>,
    ) -> Result<Self> {
        Self::new(file, Input::Reader(reader, None), progress)
    }

    /// What a command prints: its name and its arguments, without a shell. It does not see the variables `hidden`.
    ///
    /// # Errors
    /// `Usage` for a path that no file can have, or no command.
    pub fn of_command(
        file: StreamFile,
        (command, hidden): (Vec<OsString>, Vec<OsString>),
        progress: Arc<Progress>,
    ) -> Result<Self> {
        if command.is_empty() {
            return Err(Error::new(ErrorKind::Usage, "there is no command to run")
                .with_remedy("Write it after `--`: backup --stdin-from-command -- COMMAND ARGUMENTS"));
        }
        Self::new(file, Input::Command(command, hidden), progress)
    }

    fn new(mut file: StreamFile, input: Input, progress: Arc<Progress>) -> Result<Self> {
        let names: Vec<&[u8]> =
            file.path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect();
        let wrong = |name: &&[u8]| *name == b"." || *name == b".." || name.contains(&0);
        if names.is_empty() || names.iter().any(wrong) || file.path.len() > limits::PATH_BYTES_MAX {
            let path = String::from_utf8_lossy(&file.path).into_owned();
            return Err(Error::new(ErrorKind::Usage, format!("no file can be called {path:?}"))
                .with_remedy("Give a name such as dump.sql"));
        }
        file.path = names.join(&b'/');
        Ok(Self { file, input, child: None, progress, broken: Arc::default() })
    }

    /// The absolute path of the file.
    #[must_use]
    pub fn path(&self) -> Vec<u8> {
        [b"/", &self.file.path[..]].concat()
    }

    fn entry(&self, path: &[u8], kind: EntryKind) -> Entry {
        let StreamFile { path: _, uid, gid, time } = self.file;
        let is_file = kind == EntryKind::File;
        let metadata = Metadata {
            kind,
            mode: if is_file { 0o600 } else { 0o755 },
            uid,
            gid,
            user: String::new(),
            group: String::new(),
            mtime: time,
            ctime: time,
            btime: None,
            inode: 0,
            device_key: 0,
            links: 1,
            size: if is_file { SIZE_UNKNOWN } else { 0 },
            link_target: Vec::new(),
            device_number: 0,
            xattrs: Vec::new(),
            flags: 0,
            holes: Vec::new(),
            lacks: None,
        };
        let content = Content::Inline(Vec::new());
        Entry { path: path.to_vec(), metadata, content, changed_while_read: false, error: None }
    }

    fn start(&mut self) -> Result<(Box<dyn Read + Send>, Option<OwnedFd>)> {
        let (command, hidden) = match std::mem::replace(&mut self.input, Input::Used) {
            Input::Reader(reader, handle) => return Ok((reader, handle)),
            Input::Command(command, hidden) => (command, hidden),
            Input::Used => {
                return Err(Error::new(ErrorKind::Temporary, "a stream cannot be read a second time")
                    .with_remedy("The storage changed during the backup: run it again"));
            }
        };
        let (program, arguments) = command.split_first().unwrap_or_else(|| unreachable!("checked when made"));
        let name = program.to_string_lossy().into_owned();
        let mut child = Command::new(program);
        hidden.iter().for_each(|name| {
            child.env_remove(name);
        });
        let mut child =
            child.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(|e| {
                Error::new(ErrorKind::Failed, format!("could not run `{name}`"))
                    .with_remedy("Check its name and that it can be executed")
                    .with_source(e)
            })?;
        let out = child.stdout.take().unwrap_or_else(|| unreachable!("it was asked for"));
        self.child = Some((name, child));
        let (reader, handle) = readable(out.into())?;
        Ok((reader, Some(handle)))
    }
}

/// A reader, and a second handle to wait on.
fn readable(input: OwnedFd) -> Result<(Box<dyn Read + Send>, OwnedFd)> {
    let handle = input
        .try_clone()
        .map_err(|e| Error::new(ErrorKind::Failed, "could not prepare to read the stream").with_source(e))?;
    Ok((Box::new(File::from(input)), handle))
}

impl Source for Stream {
    fn open(&mut self) -> Result<Box<dyn Iterator<Item = Result<Item>> + '_>> {
        let (inner, handle) = self.start()?;
        let (progress, broken) = (Arc::clone(&self.progress), Arc::clone(&self.broken));
        let reader = Watched { inner, handle, progress, broken };
        let path = &self.file.path;
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        let folders = slashes.map(|(at, _)| self.entry(&path[..at], EntryKind::Directory));
        let mut items: Vec<Result<Item>> = folders.map(|folder| Ok(Item::Entry(folder))).collect();
        let file = self.entry(path, EntryKind::File);
        items.push(Ok(Item::File(file, Box::new(move || Ok(Box::new(reader))))));
        Ok(Box::new(items.into_iter()))
    }

    fn finish(&mut self) -> Result<()> {
        let broken = self.broken.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((name, mut child)) = self.child.take() else { return broken.map_or(Ok(()), Err) };
        if broken.is_some() {
            // Its output is not wanted any more; one that has ended already is no error.
            drop(child.kill());
        }
        let status = child.wait().map_err(|e| {
            Error::new(ErrorKind::Failed, format!("could not wait for `{name}`")).with_source(e)
        })?;
        match broken {
            Some(error) => Err(error),
            None if status.success() => Ok(()),
            None => Err(Error::new(ErrorKind::Failed, format!("the command `{name}` failed: {status}"))
                .with_remedy("No snapshot was written. Run the command by hand to see why it fails")),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some((_, mut child)) = self.child.take() {
            // The backup failed for another reason: nobody reads what the command prints.
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Remembers why reading ended before the end, for [`Source::finish`]: the engine only knows files, and a
/// file that cannot be read does not fail a backup.
struct Watched {
    inner: Box<dyn Read + Send>,
    handle: Option<OwnedFd>,
    progress: Arc<Progress>,
    broken: Arc<Mutex<Option<Error>>>,
}

impl Watched {
    /// Waits until there is something to read. A command may be silent for hours: the request to stop is
    /// looked at all the same.
    fn wait(&self) -> Result<()> {
        loop {
            self.progress.check()?;
            let Some(handle) = &self.handle else { return Ok(()) };
            let glance = Timespec { tv_sec: 0, tv_nsec: GLANCE_NANOSECONDS };
            match poll(&mut [PollFd::new(handle, PollFlags::IN)], Some(&glance)) {
                Ok(0) | Err(Errno::INTR) => {}
                // What cannot be waited for can be read.
                _ => return Ok(()),
            }
        }
    }
}

impl ReadContent for Watched {
    /// It has no past.
    fn has_changed(&self) -> Result<bool> {
        Ok(false)
    }
}

impl Read for Watched {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = match self.wait() {
            Ok(()) => self.inner.read(buffer).map_err(|e| {
                let again = e.kind() == io::ErrorKind::Interrupted;
                (again, Error::new(ErrorKind::Failed, "the stream could not be read").with_source(e))
            }),
            Err(error) => Err((false, error)),
        };
        result.map_err(|(again, error)| {
            if again {
                return io::ErrorKind::Interrupted.into();
            }
            let text = error.to_string();
            self.broken.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            io::Error::other(text)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> StreamFile {
        StreamFile { path: path.as_bytes().to_vec(), uid: 1, gid: 2, time: Timestamp::from_seconds(3) }
    }

    fn command(words: &[&str]) -> Stream {
        let words = words.iter().map(OsString::from).collect();
        Stream::of_command(file("/dumps/db.sql"), (words, Vec::new()), Arc::default()).unwrap()
    }

    fn read(stream: &mut Stream) -> (Vec<Vec<u8>>, io::Result<Vec<u8>>) {
        let (mut paths, mut text) = (Vec::new(), Ok(Vec::new()));
        for item in stream.open().unwrap() {
            match item.unwrap() {
                Item::Entry(entry) => paths.push(entry.path),
                Item::File(entry, open) => {
                    paths.push(entry.path);
                    let mut bytes = Vec::new();
                    text = open().unwrap().read_to_end(&mut bytes).map(|_| bytes);
                }
            }
        }
        (paths, text)
    }

    #[test]
    fn what_a_command_prints_is_one_file_in_its_folder() {
        let mut stream = command(&["printf", "%s", "a b"]);
        let (paths, text) = read(&mut stream);
        assert_eq!(paths, [b"dumps".to_vec(), b"dumps/db.sql".to_vec()]);
        assert_eq!(text.unwrap(), b"a b");
        stream.finish().unwrap();
        assert!(stream.open().is_err(), "a second time");
    }

    #[test]
    fn a_command_that_fails_after_its_output_fails_the_source() {
        let mut stream = command(&["sh", "-c", "echo half; exit 3"]);
        assert_eq!(read(&mut stream).1.unwrap(), b"half\n");
        assert!(stream.finish().unwrap_err().to_string().contains("exit status: 3"));
    }

    #[test]
    fn a_stream_that_breaks_or_is_stopped_fails_the_source() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("gone"))
            }
        }
        let mut stream = Stream::of_reader(file("x"), Box::new(Broken), Arc::default()).unwrap();
        assert!(read(&mut stream).1.is_err());
        assert_eq!(stream.finish().unwrap_err().kind(), ErrorKind::Failed);

        let progress = Arc::new(Progress::default());
        progress.stop();
        let mut stream = Stream::of_reader(file("x"), Box::new(io::empty()), progress).unwrap();
        assert!(read(&mut stream).1.is_err());
        assert_eq!(stream.finish().unwrap_err().kind(), ErrorKind::Interrupted);
    }

    #[test]
    fn a_silent_command_can_be_stopped() {
        let progress = Arc::new(Progress::default());
        let words = ["sleep", "600"].iter().map(OsString::from).collect();
        let mut stream = Stream::of_command(file("x"), (words, Vec::new()), Arc::clone(&progress)).unwrap();
        let (reading, ended) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let result = read(&mut stream).1;
                reading.send(result.is_err()).unwrap();
            });
            // Whether it reads already or not: it has to end.
            progress.stop();
            assert!(ended.recv().unwrap());
        });
        assert_eq!(stream.finish().unwrap_err().kind(), ErrorKind::Interrupted);
    }

    #[test]
    fn a_path_that_no_file_can_have_is_refused() {
        for path in ["", "/", "a/../b", "."] {
            let stream = Stream::of_reader(file(path), Box::new(io::empty()), Arc::default());
            assert_eq!(stream.unwrap_err().kind(), ErrorKind::Usage, "{path:?}");
        }
    }
}
