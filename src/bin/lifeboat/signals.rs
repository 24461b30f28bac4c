//! SIGINT and SIGTERM ask the command to stop; a second one ends it at once. SIGUSR1 asks how far it is.

use std::{
    fs::File,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use lifeboat::error::{Error, ErrorKind, Result};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use signal_hook::{
    consts::{SIGINT, SIGTERM, SIGUSR1, SIGXFSZ},
    flag, low_level,
};

/// The terminal before a question turned its echo off.
struct Asking {
    terminal: File,
    before: Termios,
}

/// What signals have asked for.
pub(crate) struct Signals {
    stop: Arc<AtomicBool>,
    show: Arc<AtomicBool>,
    asking: Mutex<Option<Asking>>,
    waiting: AtomicBool,
}

impl std::fmt::Debug for Signals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signals(stop: {:?})", self.stop)
    }
}

impl Signals {
    pub(crate) fn install() -> Result<Self> {
        let (stop, show) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let register = || -> std::io::Result<()> {
            for signal in [SIGINT, SIGTERM] {
                // In this order: the first signal finds the flag unset.
                flag::register_conditional_shutdown(signal, 130, Arc::clone(&stop))?;
                flag::register(signal, Arc::clone(&stop))?;
            }
            // A file that may not grow so large is an error of that file, and would else end the program.
            flag::register(SIGXFSZ, Arc::default())?;
            flag::register(SIGUSR1, Arc::clone(&show)).map(drop)
        };
        register()
            .map_err(|e| Error::new(ErrorKind::Failed, "could not listen for signals").with_source(e))?;
        Ok(Self { stop, show, asking: Mutex::default(), waiting: AtomicBool::default() })
    }

    pub(crate) fn stop_requested(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Whether SIGUSR1 came since the last call.
    pub(crate) fn take_show(&self) -> bool {
        self.show.swap(false, Ordering::SeqCst)
    }

    /// Asks the user something, without showing what is typed, not even what is typed before the question
    /// appears. Nothing has begun then, so the first signal ends the program; it gives the terminal its echo
    /// back.
    pub(crate) fn ask<T>(&self, question: impl FnOnce() -> T) -> T {
        let asking = File::options().read(true).write(true).open("/dev/tty").ok().and_then(|terminal| {
            let before = tcgetattr(&terminal).ok()?;
            let mut silent = before.clone();
            silent.local_modes.remove(LocalModes::ECHO);
            silent.local_modes.insert(LocalModes::ECHONL);
            tcsetattr(&terminal, OptionalActions::Now, &silent).ok()?;
            Some(Asking { terminal, before })
        });
        *self.asking.lock().unwrap_or_else(PoisonError::into_inner) = asking;
        let answer = question();
        let asked = self.asking.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Asking { terminal, before }) = asked {
            // A terminal that is gone needs no echo.
            tcsetattr(terminal, OptionalActions::Now, &before).unwrap_or_default();
        }
        answer
    }

    /// Reads what may never come, from a pipe or a command. Nothing has begun then, so the first signal ends the
    /// program.
    pub(crate) fn wait<T>(&self, read: impl FnOnce() -> T) -> T {
        self.waiting.store(true, Ordering::SeqCst);
        let got = read();
        self.waiting.store(false, Ordering::SeqCst);
        got
    }

    /// Ends the program if it was asked to stop during a question, or while it waits for an answer from elsewhere.
    pub(crate) fn end_question(&self) {
        let asking = self.asking.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Asking { terminal, before }) = asking.as_ref().filter(|_| self.stop_requested()) {
            // Nothing more can be done about a terminal that is gone.
            if tcsetattr(terminal, OptionalActions::Now, before).is_ok() {
                drop(std::io::Write::write_all(&mut &*terminal, b"\nlifeboat: interrupted\n"));
            }
            low_level::exit(130);
        }
        if self.stop_requested() && self.waiting.load(Ordering::SeqCst) {
            drop(std::io::Write::write_all(&mut std::io::stderr(), b"lifeboat: interrupted\n"));
            low_level::exit(130);
        }
    }
}
