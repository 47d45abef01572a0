//! A scanner that runs all the while as an ordinary user of the host and looks wherever such a user
//! may look.

use nspawn_tests::Rig;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Stdio};

/// Words come on standard input, so that the scanner's own command line does not hold them; the end
/// of standard input ends it. Only files that changed since its start are read: a value that is
/// written down changes a file.
const SCRIPT: &str = r#"
use strict;
my @words;
while (my $line = <STDIN>) { chomp $line; last if $line eq ""; push @words, $line }
my ($began, $rounds, %found, %tasks, $units) = (time - 2, 0);
my $any = join "|", map { quotemeta } @words;
$| = 1;
print "ready\n";
sub look {
    my ($kind, $where, $text) = @_;
    return unless defined $text and $text =~ /($any)/;
    print "found $1 $kind $where\n" unless $found{"$1 $kind $where"}++;
}
sub slurp {
    open(my $file, "<", $_[0]) or return;
    my ($text, $piece) = ("");
    while (length $text < 8 << 20 and sysread $file, $piece, 1 << 16) { $text .= $piece }
    return $text;
}
sub processes {
    opendir(my $proc, "/proc") or die;
    for my $pid (grep { /^\d+$/ } readdir $proc) {
        look($_, "/proc/$pid/$_", slurp("/proc/$pid/$_")) for qw(environ comm);
        my $line = slurp("/proc/$pid/cmdline");
        look("cmdline", "/proc/$pid/cmdline", $line);
        $tasks{$1}++ if defined $line and $line =~ /--machine=((plain|broken)-[^\0]+|by-hand)/;
    }
}
sub files {
    my ($directory) = @_;
    opendir(my $all, $directory) or return;
    for my $name (readdir $all) {
        next if $name eq "." or $name eq "..";
        my $path = "$directory/$name";
        my @stat = lstat $path or next;
        if (-d _) { files($path) }
        elsif (-f _ and $stat[10] >= $began) { look("file", $path, slurp($path)) }
    }
}
while (1) {
    my $in = "";
    vec($in, 0, 1) = 1;
    last if select($in, undef, undef, 0.02);
    processes();
    next if $rounds++ % 8;
    my $show = `systemctl show --all 'nomad-nspawn-*' 2>&1`;
    $units++ if $show =~ /ExecStart/;
    look("unit", "systemctl show", $show);
    look("journal", "journalctl", scalar `journalctl --no-pager -o export --since=-5min 2>/dev/null`);
    files($_) for qw(/run /var /tmp /etc);
}
printf "end %d %d %d\n", $rounds, scalar keys %tasks, $units;
"#;

/// A running scanner.
pub(crate) struct Scanner {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

/// What it has seen.
#[derive(Debug)]
pub(crate) struct Report {
    /// Word, kind of place and place of everything found.
    pub(crate) found: Vec<String>,
    /// How often it has looked at all processes.
    pub(crate) rounds: usize,
    /// Containers of its test whose processes it has seen.
    pub(crate) containers: usize,
    /// How often it has read the properties of a task's unit.
    pub(crate) units: usize,
}

impl Scanner {
    /// Starts it as user 1000 and waits until it looks.
    pub(crate) fn start(rig: &Rig, words: &[&str]) -> Self {
        let mut command = rig.command_as(1000, &["perl", "-e", SCRIPT]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.as_mut().unwrap();
        writeln!(input, "{}\n", words.join("\n")).unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { child, out }
    }

    /// Ends it.
    pub(crate) fn stop(mut self) -> Report {
        drop(self.child.stdin.take());
        let mut lines: Vec<String> = self.out.lines().map(Result::unwrap).collect();
        let end = lines.pop().unwrap();
        let numbers: Vec<usize> = end.split(' ').skip(1).map(|n| n.parse().unwrap()).collect();
        let [rounds, containers, units] = numbers[..] else { panic!("{end}") };
        assert!(self.child.wait().unwrap().success());
        Report { found: lines, rounds, containers, units }
    }
}
