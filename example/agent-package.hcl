# What the Nomad agent's configuration needs when the driver was installed by its package. An agent
# that has a plugin_dir keeps it: ln -s /usr/lib/nomad/plugins/nspawn DIRECTORY/nspawn
plugin_dir = "/usr/lib/nomad/plugins"
plugin "nspawn" {
  config {}
}
