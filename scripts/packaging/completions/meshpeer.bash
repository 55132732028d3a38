# Completes meshpeer in bash: the program itself says what fits the line as far as it is typed.
_meshpeer() {
  mapfile -t COMPREPLY < <(
    COMP_WORDS=$(printf '%s\n' "${COMP_WORDS[@]}") COMP_CWORD=$COMP_CWORD _MESHPEER_COMPLETE=complete_bash \
      command "$1" 2> /dev/null
  )
  if [[ ${#COMPREPLY[@]} -eq 1 && -z ${COMPREPLY[0]} ]]; then COMPREPLY=(); fi
}
complete -o default -F _meshpeer meshpeer
