# The watchdog: ends what a dead test process left behind.
#
# $1 is the session's folder. Standard input is a pipe whose other end only the test process holds, so end of file
# means that the process is gone, whatever killed it. Each folder in $1/leash stands for one process; its file `pid`
# says `<process id> <signal that ends it>`. Every process on the leash leads a process group of its own.
trap '' INT TERM HUP QUIT
cd /
while read -r _; do :; done

# From here on nobody can register: a child that started too late fails to find its folder, and ends itself.
mv "$1/leash" "$1/ended"

each() {
    for entry in "$1"/ended/*/pid; do
        [ -f "$entry" ] || continue
        read -r pid signal <"$entry"
        "$2" "$pid" "$signal"
    done
}
ask() {
    kill -s "$2" -- "-$1"
    kill -s CONT -- "-$1" # a stopped process does not hear anything else
}
insist() {
    tries=0
    while kill -s 0 -- "-$1" && [ "$tries" -lt 100 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
    kill -s KILL -- "-$1"
}
each "$1" ask
each "$1" insist
rm -rf "$1"
