# What the Nomad agent's own configuration needs: the file in plugin_dir must be named `nspawn`.
plugin_dir = "/opt/nomad/plugins"

plugin "nspawn" {
  config {
    enabled = true
    volumes = true
  }
}
