#compdef nomad-nspawnctl

_nomad_nspawnctl() {
    local -a verbs
    verbs=(
        'doctor:check this host'
        'policy:check a policy file, or explain its verdict on a job'
        'network:tasks with a network of their own'
        'metrics:figures for the textfile collector'
        'filters:system call filters that starts use again'
        'images:images of imported archives'
        'reload:make the helper read its policy file again'
        'retire:end containers of the older driver'
        'help:print a summary'
    )
    if ((CURRENT == 2)); then
        _describe command verbs -- '(--help)--help' '(--version)--version'
        return
    fi
    case $words[2] in
    doctor)
        _arguments '--json[print JSON]' '--agent-unit[unit of the Nomad agent]:unit:' \
            '--plugin[file of the plugin]:file:_files'
        ;;
    policy)
        if ((CURRENT == 3)); then
            _values command 'check[check a policy file]' 'explain[verdict on a job]'
        elif [[ $words[3] == explain ]]; then
            _arguments '--json[print JSON]' '--policy[policy file]:file:_files' '*:job:_files'
        else
            _files
        fi
        ;;
    network) _arguments '--json[print JSON]' ;;
    filters) _values command 'list[list them]' 'verify[make each again, and compare]' ;;
    images)
        if ((CURRENT == 3)); then
            _values command 'import[make an image of an archive]' 'list[list them]' 'rm[remove one]'
        elif [[ $words[3] == import ]]; then
            _arguments '--name[name of the image]:name:' '*:archive:_files'
        elif [[ $words[3] == list ]]; then
            _arguments '--json[print JSON]'
        fi
        ;;
    retire) _arguments '--list[only list them]' '*:machine:' ;;
    esac
}

_nomad_nspawnctl "$@"
