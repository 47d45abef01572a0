# A whole Debian that has more of the CPU until it has booted: its weight is five times as high until
# the container's systemd reports that it is ready, for 60 s at most.
job "slow-start" {
  group "slow-start" {
    task "debian" {
      driver = "nspawn"

      config {
        image     = "debian"
        boot      = true
        ephemeral = true
        cpu_boost = 5

        ready {
          mode    = "notify"
          timeout = "90s"
        }
      }

      kill_timeout = "20s"

      resources {
        cpu    = 100
        memory = 256
      }
    }
  }
}
