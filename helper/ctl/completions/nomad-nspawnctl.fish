# fish completion of nomad-nspawnctl
set -l verbs doctor policy network metrics filters images reload retire help
set -l none "not __fish_seen_subcommand_from $verbs"
complete -c nomad-nspawnctl -f
complete -c nomad-nspawnctl -n $none -a doctor -d 'Check this host'
complete -c nomad-nspawnctl -n $none -a policy -d 'Check a policy file, or explain its verdict on a job'
complete -c nomad-nspawnctl -n $none -a network -d 'Tasks with a network of their own'
complete -c nomad-nspawnctl -n $none -a metrics -d 'Figures for the textfile collector'
complete -c nomad-nspawnctl -n $none -a filters -d 'System call filters that starts use again'
complete -c nomad-nspawnctl -n $none -a images -d 'Images of imported archives'
complete -c nomad-nspawnctl -n $none -a reload -d 'Make the helper read its policy file again'
complete -c nomad-nspawnctl -n $none -a retire -d 'End containers of the older driver'
complete -c nomad-nspawnctl -n $none -a help -d 'Print a summary'
complete -c nomad-nspawnctl -n $none -l help -d 'Print a summary'
complete -c nomad-nspawnctl -n $none -l version -d 'Print the version'
complete -c nomad-nspawnctl -n '__fish_seen_subcommand_from doctor explain network' -l json -d 'Print JSON'
complete -c nomad-nspawnctl -n '__fish_seen_subcommand_from doctor' -l agent-unit -x -d 'Unit of the Nomad agent'
complete -c nomad-nspawnctl -n '__fish_seen_subcommand_from doctor' -l plugin -r -F -d 'File of the plugin'
complete -c nomad-nspawnctl -n '__fish_seen_subcommand_from policy; and not __fish_seen_subcommand_from check explain' -a 'check explain'
complete -c nomad-nspawnctl -n '__fish_seen_subcommand_from check explain' -F
complete -c nomad-nspawnctl -n '__fish_seen_subcommand_from explain' -l policy -r -F -d 'Policy file'
complete -c nomad-nspawnctl -n '__fish_seen_subcommand_from filters; and not __fish_seen_subcommand_from list verify' -a 'list verify'
complete -c nomad-nspawnctl -n '__fish_seen_subcommand_from images; and not __fish_seen_subcommand_from import list rm' -a 'import list rm'
complete -c nomad-nspawnctl -n '__fish_seen_subcommand_from images; and __fish_seen_subcommand_from list' -l json -d 'Print JSON'
complete -c nomad-nspawnctl -n '__fish_seen_subcommand_from import' -F
complete -c nomad-nspawnctl -n '__fish_seen_subcommand_from import' -l name -x -d 'Name of the image'
complete -c nomad-nspawnctl -n '__fish_seen_subcommand_from retire' -l list -d 'Only list them'
