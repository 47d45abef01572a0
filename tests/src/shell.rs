//! Job files for tasks that run a shell script in the busybox image.
//!
//! For tests that start many of them; everything that a test does not name is the same for all.

/// Such a job.
#[derive(Clone, Copy, Debug)]
pub struct ShellJob<'a> {
    /// Its name.
    pub name: &'a str,
    /// `batch` or `service`.
    pub kind: &'a str,
    /// Tasks of the job, one an allocation; each is named `t`.
    pub count: usize,
    /// How often each may be started again, without delay.
    pub restarts: usize,
    /// Whether the command is PID 2 below a stub init.
    pub process_two: bool,
    /// Whether port 80 is published, under the label `http`.
    pub port: bool,
    /// `kill_timeout`.
    pub kill_timeout: &'a str,
    /// The script; double quotes and backslashes must be written as HCL wants them.
    pub script: &'a str,
}

impl ShellJob<'_> {
    /// The job file. A task that ends for good is not placed anew, and a running one counts at once.
    #[must_use]
    pub fn hcl(&self) -> String {
        let Self { name, kind, count, restarts, process_two, port, kill_timeout, script } = self;
        let (network, ports) = if *port {
            ("network {\n      port \"http\" {\n        to = 80\n      }\n    }", "[\"http\"]")
        } else {
            ("", "[]")
        };
        let update = if *kind == "service" {
            "update {\n      min_healthy_time = \"0s\"\n    }"
        } else {
            ""
        };
        format!(
            r#"
job "{name}" {{
  type = "{kind}"
  group "g" {{
    count = {count}
    restart {{
      attempts = {restarts}
      delay    = "0s"
      interval = "10m"
      mode     = "fail"
    }}
    reschedule {{
      attempts  = 0
      unlimited = false
    }}
    {update}
    {network}
    task "t" {{
      driver       = "nspawn"
      kill_timeout = "{kill_timeout}"
      config {{
        image       = "busybox"
        boot        = false
        ephemeral   = true
        process_two = {process_two}
        ports       = {ports}
        command     = ["/bin/sh", "-c", "{script}"]
      }}
      resources {{
        cpu    = 20
        memory = 16
      }}
    }}
  }}
}}
"#
        )
    }
}
