# One command in a container: prints to both streams and ends.
# The image is shared read-only; what the task writes goes with it.
job "hello" {
  type = "batch"

  group "hello" {
    task "hello" {
      driver = "nspawn"

      config {
        image     = "busybox"
        boot      = false
        ephemeral = true
        command   = ["/bin/sh", "-c", "echo hello from $(hostname); echo $GREETING >&2; cat /proc/self/uid_map; id"]
      }

      env {
        GREETING = "variables are on no command line"
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
