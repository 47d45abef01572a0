//! Writers of the tasks' log FIFOs, which keep what nobody has read yet.
//!
//! When Nomad's log collector dies, the output waits in the FIFO, and would go with the last
//! descriptor of it: Nomad removes an ended run before it starts the next one's collector. So a
//! writer of each FIFO is held while the task runs, and after it where output waits and nobody
//! reads, until the task's next run has the FIFO open or its file is gone. Where somebody reads, it
//! is released as soon as systemd-nspawn has ended, long before Nomad sees it: a collector that
//! meets its end of file later than the next start would not collect for that.
//!
//! Never reads or writes a byte.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{FileStat, fstat};
use proto::unit_id::UnitId;

use crate::systemd::notify;

/// Names in the descriptor store, before the unit's id.
const NAMES: [&str; 2] = ["stdout-", "stderr-"];
/// Most FIFOs of ended tasks; the oldest goes first. Only a hostile payload makes
/// more: it replaces its FIFOs and dies.
const ENDED_MAX: usize = 256;

/// One FIFO.
#[derive(Debug)]
struct Writer {
    unit: UnitId,
    /// Name in the descriptor store.
    name: String,
    fifo: OwnedFd,
    ended: bool,
}

impl Writer {
    fn file(&self) -> Option<FileStat> {
        fstat(&self.fifo).ok().filter(|file| file.st_nlink > 0)
    }

    fn is(&self, other: &FileStat) -> bool {
        self.file().is_some_and(|own| (own.st_dev, own.st_ino) == (other.st_dev, other.st_ino))
    }

    /// Whether there is output that nobody reads, and somebody still could: a writer sees `POLLERR`
    /// without a reader (poll(2)).
    fn has_unread(&self) -> bool {
        let mut polled = [PollFd::new(self.fifo.as_fd(), PollFlags::empty())];
        let alone = poll(&mut polled, PollTimeout::ZERO).is_ok_and(|events| events > 0);
        alone
            && self.file().is_some()
            && rustix::io::ioctl_fionread(&self.fifo).is_ok_and(|unread| unread > 0)
    }
}

/// All of them, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Streams(Vec<Writer>);

impl Streams {
    /// The FIFOs of a task that runs; those of its earlier run are the same files.
    pub(crate) fn enter(&mut self, unit: UnitId, fifos: [OwnedFd; 2]) {
        for (name, fifo) in NAMES.into_iter().zip(fifos) {
            let writer = Writer { unit, name: format!("{name}{unit}"), fifo, ended: false };
            if let Some(file) = writer.file() {
                self.release(|earlier| earlier.ended && earlier.is(&file));
            }
            if let Err(error) = notify::store(&writer.name, writer.fifo.as_fd()) {
                tracing::warn!(name = writer.name, %error, "uncollected output may be lost with us");
            }
            self.0.push(writer);
        }
    }

    /// A task has ended, with every process of it.
    pub(crate) fn end(&mut self, unit: UnitId) {
        for writer in self.0.iter_mut().filter(|writer| writer.unit == unit) {
            writer.ended = true;
        }
        self.release(|writer| writer.unit == unit && !writer.has_unread());
        // Beyond the limit.
        let ended = self.0.iter().filter(|writer| writer.ended).count();
        let mut over = ended.saturating_sub(ENDED_MAX);
        self.release(|writer| {
            let oldest = writer.ended && over > 0;
            over = over.saturating_sub(oldest.into());
            oldest
        });
    }

    /// Releases files that are gone, with their allocation.
    pub(crate) fn sweep(&mut self) {
        self.release(|writer| writer.ended && writer.file().is_none());
    }

    /// Takes over what an earlier process has stored.
    pub(crate) fn adopt(
        &mut self,
        stored: &mut HashMap<String, OwnedFd>,
        runs: impl Fn(UnitId) -> bool,
    ) {
        let unit =
            |name: &str| NAMES.iter().find_map(|kind| UnitId::parse(name.strip_prefix(kind)?));
        for (name, fifo) in stored.extract_if(|name, _| unit(name).is_some()) {
            let Some(unit) = unit(&name) else { continue };
            self.0.push(Writer { unit, name, fifo, ended: !runs(unit) });
        }
        self.release(|writer| writer.ended && !writer.has_unread());
    }

    /// Releases some, here and in the store.
    fn release(&mut self, mut gone: impl FnMut(&Writer) -> bool) {
        self.0
            .extract_if(.., |writer| gone(writer))
            .for_each(|writer| notify::forget(&writer.name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::write;
    use proto::name::{AllocId, Instance};

    fn unit(number: u32) -> UnitId {
        UnitId { alloc: AllocId([1; 16]), instance: Instance(number) }
    }

    /// No program that another test starts must keep an end of it.
    fn pipe() -> (OwnedFd, OwnedFd) {
        nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap()
    }

    /// Closes the only reader. A program that is being started has a copy up to its execve.
    fn lose(reader: OwnedFd, writer: &OwnedFd) {
        drop(reader);
        let mut polled = [PollFd::new(writer.as_fd(), PollFlags::empty())];
        assert_eq!(poll(&mut polled, PollTimeout::from(10_000_u16)), Ok(1));
    }

    /// The reader and two writers of a stream with unread output, and another stream without.
    fn streams() -> (OwnedFd, [OwnedFd; 2]) {
        let (reader, writer) = pipe();
        write(&writer, b"unread").unwrap();
        (reader, [writer, pipe().1])
    }

    fn names(streams: &Streams) -> Vec<&str> {
        streams.0.iter().map(|writer| writer.name.as_str()).collect()
    }

    #[test]
    fn only_output_that_nobody_reads_is_kept() {
        let mut all = Streams::default();
        let ((reader, unread), (still_read, read)) = (streams(), streams());
        lose(reader, &unread[0]);
        all.enter(unit(1), unread);
        all.enter(unit(2), read);
        assert_eq!(names(&all).len(), 4, "everything while the tasks run");
        all.end(unit(1));
        all.end(unit(2));
        assert_eq!(names(&all), [format!("stdout-{}", unit(1))]);
        // The collector finds it, and then its end.
        let mut found = [0; 16];
        assert_eq!(nix::unistd::read(&still_read, &mut found), Ok(6));
        assert_eq!(nix::unistd::read(&still_read, &mut found), Ok(0));
    }

    #[test]
    fn the_next_run_of_the_task_takes_its_place() {
        let mut all = Streams::default();
        let (reader, unread) = streams();
        let again = unread.each_ref().map(|fifo| fifo.try_clone().unwrap());
        lose(reader, &unread[0]);
        all.enter(unit(1), unread);
        all.end(unit(1));
        all.enter(unit(2), again);
        assert_eq!(names(&all), NAMES.map(|name| format!("{name}{}", unit(2))));
    }

    #[test]
    fn what_an_earlier_process_held_is_taken_over() {
        let stored = |number| {
            let (reader, [stdout, stderr]) = streams();
            lose(reader, &stdout);
            let name = |stream| format!("{stream}-{}", unit(number));
            [(name("stdout"), stdout), (name("stderr"), stderr)]
        };
        let mut passed: HashMap<_, _> = stored(1).into_iter().chain(stored(2)).collect();
        passed.insert("range-524288".to_owned(), pipe().0);
        let mut all = Streams::default();
        all.adopt(&mut passed, |id| id == unit(1));
        let mut found = names(&all);
        found.sort_unstable();
        let kept = [(1, "stderr"), (1, "stdout"), (2, "stdout")];
        let mut expected = kept.map(|(number, name)| format!("{name}-{}", unit(number)));
        expected.sort_unstable();
        assert_eq!(found, expected);
        assert_eq!(passed.into_keys().collect::<Vec<_>>(), ["range-524288"]);
    }

    #[test]
    fn no_more_than_the_limit_is_kept_and_nothing_of_a_file_that_is_gone() {
        let mut all = Streams::default();
        let most = u32::try_from(ENDED_MAX).unwrap();
        for number in 0..most + 3 {
            let (reader, writers) = streams();
            lose(reader, &writers[0]);
            all.enter(unit(number), writers);
            all.end(unit(number));
        }
        assert_eq!(all.0.len(), ENDED_MAX);
        assert!(all.0.iter().all(|writer| writer.unit != unit(2)), "the oldest goes first");
        all.sweep();
        assert_eq!(all.0.len(), ENDED_MAX);

        let path = std::env::temp_dir().join(format!("streams-{}", std::process::id()));
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let open = || std::fs::File::options().read(true).write(true).open(&path).unwrap();
        let fifo = OwnedFd::from(open());
        std::fs::remove_file(&path).unwrap();
        let unit = unit(most + 9);
        let name = "stdout-gone".to_owned();
        all.0.push(Writer { unit, name, fifo, ended: true });
        all.sweep();
        assert_eq!(all.0.len(), ENDED_MAX);
    }
}
