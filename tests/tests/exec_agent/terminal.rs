//! A terminal that a person sits at: `nomad alloc exec -t` with a real one on its side.

use crate::{LIMIT, RIG, Service, busybox, host, wait_for_nothing_left};
use nspawn_tests::wait;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

/// `nomad alloc exec -t`, and the terminal that it runs in.
pub(crate) struct Terminal {
    master: File,
    child: Child,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    pub(crate) fn start(service: &Service, words: &[&str]) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        unlockpt(&master).unwrap();
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = ioctl_tiocgptpeer(&master, flags).unwrap();
        let master = File::from(master);
        set_size(&master, 24, 80);
        let inner = RIG.command(&service.words("-t=true", words));
        let environment = inner.get_envs().filter_map(|(name, value)| Some((name, value?)));
        let again = || Stdio::from(slave.try_clone().unwrap());
        let child = Command::new("setsid")
            .arg("--ctty")
            .arg(inner.get_program())
            .args(inner.get_args())
            .env_clear()
            .envs(environment)
            .env("TERM", "xterm")
            .stdin(again())
            .stdout(again())
            .stderr(again())
            .spawn()
            .unwrap();
        drop(slave);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, sink) = (master.try_clone().unwrap(), Arc::clone(&seen));
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // EIO when the last process has closed it.
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                sink.lock().unwrap().extend_from_slice(&buffer[..length]);
            }
        });
        Self { master, child, seen }
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.master.write_all(bytes).unwrap();
    }

    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        set_size(&self.master, rows, columns);
    }

    pub(crate) fn wait_for(&self, text: &str) {
        wait::true_within(text, LIMIT, || Ok(self.text().contains(text)))
            .unwrap_or_else(|error| panic!("{error:#}: {:?}", self.text()));
    }

    /// Waits for its end: everything that was seen, and the exit code.
    pub(crate) fn finish(&mut self) -> (String, i32) {
        let status = wait::until("the session's end", LIMIT, || Ok(self.child.try_wait()?))
            .unwrap_or_else(|error| panic!("{error:#}: {:?}", self.text()));
        // What is still on its way through this machine's terminal.
        std::thread::sleep(std::time::Duration::from_millis(100));
        (self.text(), status.code().unwrap_or(-1))
    }

    /// Kills the user's program; the session is hung up.
    pub(crate) fn kill(&mut self) {
        RIG.exec(&["pkill", "-KILL", "-f", "[n]omad alloc exec -t=true"]).unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn set_size(master: &File, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(master, size).unwrap();
}

#[test]
fn a_terminal_is_one_to_every_program() {
    let _host = host();
    let service = Service::start("terminal", busybox());
    let mut shell = Terminal::start(&service, &["/bin/sh"]);
    shell.send(b"tty; echo TERM is $TERM; stty size; echo $OWN\n");
    shell.wait_for("/dev/pts/");
    shell.wait_for("TERM is xterm");
    shell.wait_for("24 80");
    shell.wait_for("of the job\r\n");
    // A new size arrives while a program runs.
    shell.send(b"while :; do echo size $(stty size); sleep 0.1; done\n");
    shell.wait_for("size 24 80\r\n");
    shell.resize(30, 90);
    shell.wait_for("size 30 90\r\n");
    // ^C ends the loop and not the shell.
    shell.send(b"\x03");
    shell.send(b"echo back $((40 + 2))\n");
    shell.wait_for("back 42");
    // ^Z stops a program, fg goes on with it: the shell controls jobs.
    shell.send(b"(sleep 2; echo slept)\n");
    std::thread::sleep(std::time::Duration::from_millis(700));
    shell.send(b"\x1a");
    shell.wait_for("Stopped");
    shell.send(b"fg\n");
    shell.wait_for("slept\r\n");
    // ^D at the prompt is the end.
    shell.send(b"\x04");
    assert_eq!(shell.finish().1, 0);
    service.purge();
}

/// Nomad's agent closes a session whose user has gone when it cannot pass on the next output; until
/// then no driver learns of it.
#[test]
fn a_user_who_goes_ends_what_runs_in_the_terminal() {
    let _host = crate::alone();
    let service = Service::start("hang-up", busybox());
    let script = "trap 'echo hup > /alloc/data/hup; exit' HUP; echo up; \
                  sleep 81731 & while :; do echo .; sleep 0.1; done";
    let mut terminal = Terminal::start(&service, &["/bin/sh", "-c", script]);
    terminal.wait_for("up\r\n");
    terminal.kill();
    wait_for_nothing_left("sleep 81731");
    let hup = format!("/var/lib/nomad/alloc/{}/alloc/data/hup", service.alloc.id);
    assert_eq!(RIG.read_file(&hup).unwrap(), b"hup\n");
    service.purge();
}
