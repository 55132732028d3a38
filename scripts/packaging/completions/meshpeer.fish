# Completes meshpeer in fish: the program itself says what fits the line as far as it is typed.
function __meshpeer_complete
    set -l words (commandline -opc) (commandline -ct)
    set -lx COMP_WORDS (string join \n -- $words | string collect)
    set -lx COMP_CWORD (math (count $words) - 1)
    set -lx _MESHPEER_COMPLETE complete_bash
    command $words[1] 2>/dev/null
end
complete --command meshpeer --arguments '(__meshpeer_complete)'
