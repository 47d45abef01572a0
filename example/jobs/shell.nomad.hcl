# A command list with a shell: the list is the argument vector, nothing splits or expands it but the
# shell that it names.
job "shell" {
  type = "batch"

  group "shell" {
    task "shell" {
      driver = "nspawn"

      config {
        image     = "busybox"
        boot      = false
        ephemeral = true
        command   = ["/bin/sh", "-c", "for i in 1 2 3; do echo line $i; done; exit 0"]
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
