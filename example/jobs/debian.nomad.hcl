# A whole Debian, booted with systemd as PID 1. `nomad job stop` powers it off.
job "debian" {
  type = "service"

  group "debian" {
    task "debian" {
      driver       = "nspawn"
      kill_timeout = "20s"

      config {
        image     = "debian"
        boot      = true
        ephemeral = true
      }

      resources {
        cpu    = 200
        memory = 256
      }
    }
  }
}
