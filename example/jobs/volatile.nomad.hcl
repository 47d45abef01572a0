# A root of which /var alone can be written, in memory: gone with the task.
job "volatile" {
  type = "batch"

  group "volatile" {
    task "volatile" {
      driver = "nspawn"

      config {
        image    = "busybox"
        boot     = false
        volatile = "state"
        command  = ["/bin/sh", "-c", "echo x > /var/x && ! echo x > /etc/x"]
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
