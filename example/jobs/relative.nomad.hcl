# An image by a path relative to the agent's working directory or the plugin's directory. The policy
# file must list the directory (preset = "compat" allows every one):
#   [images]
#   paths = [{ path = "/var/lib/machines", writable = true }, "/opt/nomad/plugins/images"]
job "relative" {
  type = "batch"

  group "relative" {
    task "relative" {
      driver = "nspawn"

      config {
        image     = "images/busybox"
        boot      = false
        ephemeral = true
        command   = ["/bin/true"]
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
