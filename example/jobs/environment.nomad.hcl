# Variables of the config block, in both spellings; Nomad's own win.
job "environment" {
  type = "batch"

  group "environment" {
    task "block" {
      driver = "nspawn"

      config {
        image     = "busybox"
        boot      = false
        ephemeral = true
        command   = ["/bin/sh", "-c", "echo $FOO $NOMAD_TASK_NAME"]

        environment {
          FOO = "bar"
        }
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }

    task "map" {
      driver = "nspawn"

      config {
        image     = "busybox"
        boot      = false
        ephemeral = true
        command   = ["/bin/sh", "-c", "echo $FOO $NOMAD_TASK_NAME"]

        environment = {
          FOO             = "bar"
          NOMAD_TASK_NAME = "not this"
        }
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
