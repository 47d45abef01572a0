# bash completion of nomad-nspawnctl
_nomad_nspawnctl() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]} words=
    COMPREPLY=()
    case $before in
    --plugin | --policy)
        compopt -o default
        return
        ;;
    --agent-unit)
        words=$(systemctl list-units --all --plain --no-legend --type=service 2>/dev/null | cut -d' ' -f1)
        ;;
    *)
        case "$COMP_CWORD ${COMP_WORDS[1]} ${COMP_WORDS[2]-}" in
        "1 "*) words='doctor policy network metrics filters images reload retire help --help --version' ;;
        *" doctor "*) words='--json --agent-unit --plugin' ;;
        "2 policy "*) words='check explain' ;;
        *" policy check") compopt -o default ;;
        *" policy explain")
            words='--json --policy'
            compopt -o default
            ;;
        *" network "*) words='--json' ;;
        "2 filters "*) words='list verify' ;;
        "2 images "*) words='import list rm' ;;
        *" images import")
            words='--name'
            compopt -o default
            ;;
        *" images list") words='--json' ;;
        *" retire "*) words="--list $(machinectl list --no-legend 2>/dev/null | cut -d' ' -f1)" ;;
        esac
        ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}
complete -F _nomad_nspawnctl nomad-nspawnctl
