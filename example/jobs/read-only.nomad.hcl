# A root that nobody can write to; /local is Nomad's and can be written.
job "read-only" {
  type = "batch"

  group "read-only" {
    task "read-only" {
      driver = "nspawn"

      config {
        image     = "busybox"
        boot      = false
        read_only = true
        command   = ["/bin/sh", "-c", "echo x > /local/x && ! echo x > /etc/x"]
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
