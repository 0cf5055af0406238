#!/usr/bin/env bash
# A real SLURM on one machine, for tests and for trying out: Debian's slurm-wlm and munge, two nodes, fake GPUs.
set -euo pipefail

usage() {
    cat <<'END'
usage: slurm/local_cluster.sh COMMAND [options]

A real one-machine SLURM cluster: two nodes (n1, n2) with two fake GPUs each, a partition `low` (the default) and a
partition `high` that preempts it: a job on low gets the signal of its --signal at once (the batch script only with B:),
SIGTERM 10 to 15 s later, SIGKILL after 5 more, and is requeued. It needs no systemd and no root (then only its own user's
jobs run), and touches nothing outside its folder: own keys, sockets, ports and logs. Several can run at once.

  up                start it, wait until both nodes are idle, print the line to eval; nothing to do if it is up
  env               print that line:   eval "$(slurm/local_cluster.sh env)"
  status            nodes, jobs and daemons; fails if the controller does not answer
  down              cancel all jobs, stop all daemons, remove the folder
  install           apt-get install what is missing (as root); no service is started by it
  for tests of faults (what runs in jobs goes on):
  stop-controller   end slurmctld in order; it remembers all jobs
  kill-controller   kill -9 slurmctld; what it learnt in its last seconds is lost: a job that has just begun may begin twice
  stop-node NAME    kill -9 a node's slurmd; after some 30 s the node is down and its jobs are requeued
  start-controller, start-node NAME

  --folder DIR      where everything is kept (default: ${XDG_RUNTIME_DIR:-/tmp}/xnets-slurm-USER)
  --accounting      up, install: also slurmdbd with its own MariaDB, so that sacct answers
  --cpus N          up: CPUs that each node says it has, whatever the machine has (default 8)
  --max-array-size N   up: SLURM's MaxArraySize, one more than the largest array index (default 1001)
END
}

die() { echo "local_cluster.sh: $*" >&2; exit 1; }
say() { echo "$*" >&2; }

# ---- arguments

user=$(id -un)
command="" node="" accounting=no cpus=8 max_array=1001
folder=${XDG_RUNTIME_DIR:-/tmp}/xnets-slurm-$user
PATH=$PATH:/usr/sbin:/sbin
unset "${!SLURM_@}" "${!SBATCH_@}" "${!SQUEUE_@}" "${!SINFO_@}" # a real cluster's settings are not for this one

number() { # OPTION VALUE
    [[ $2 =~ ^[1-9][0-9]{0,6}$ ]] || die "$1 wants a whole number from 1, not '$2'."
    echo "$2"
}

while (($#)); do
    case $1 in
        -h | --help) usage; exit 0 ;;
        --accounting) accounting=yes ;;
        --folder | --cpus | --max-array-size)
            (($# > 1)) || die "$1 wants a value; see --help."
            case $1 in
                --folder) folder=$2 ;;
                --cpus) cpus=$(number "$1" "$2") ;;
                *) max_array=$(number "$1" "$2") ;;
            esac
            shift ;;
        -*) die "there is no option '$1'; see --help." ;;
        *)
            if [[ -z $command ]]; then command=$1
            elif [[ $command == *-node && -z $node ]]; then node=$1
            else die "'$1' is one argument too many; see --help."; fi ;;
    esac
    shift
done
case $command in
    up | env | status | down | install | stop-controller | kill-controller | start-controller) ;;
    stop-node | start-node) [[ $node == n1 || $node == n2 ]] || die "$command wants a node: n1 or n2, not '$node'." ;;
    "") die "say what to do: up, env, status, down or install; see --help." ;;
    *) die "there is no command '$command'; see --help." ;;
esac
folder=$(realpath -m -- "$folder")
[[ $folder =~ ^/[A-Za-z0-9._/+-]+$ ]] || die "the folder '$folder' has letters that slurm.conf does not take; choose another --folder."
((${#folder} <= 64)) || die "the folder's name is too long for sockets in it ($folder has ${#folder} letters, 64 are possible); choose a shorter --folder."
name=xs$(printf %s "$folder" | cksum | cut -d' ' -f1) # the cluster's name, in the environment of all its jobs
conf=$folder/slurm.conf
export SLURM_CONF=$conf

# ---- processes

processes() { # pid and name of everything of SLURM's that is this cluster's; whole arguments are compared, never parts
    local pid what
    { grep -lszFx -e "$conf" -e "--socket=$folder/munge.sock" -e "--socket=$folder/db/sock" -e "SLURM_CONF=$conf" \
        /proc/[0-9]*/cmdline /proc/[0-9]*/environ || true; } | cut -d/ -f3 | sort -un |
        while read -r pid; do
            what=$(cat "/proc/$pid/comm" 2>/dev/null) || continue
            case $what in munged | slurmctld | slurmscriptd | slurmd | slurmdbd | mariadbd) echo "$pid $what" ;; esac
        done
    for pid in $(pgrep -x slurmstepd); do # these overwrite their arguments and environment, but have their log open
        [[ -z $(find "/proc/$pid/fd" -lname "$folder/log/slurmd.n[12]" -print -quit 2>/dev/null || true) ]] || echo "$pid slurmstepd"
    done
}

daemons() { processes | grep -vE ' slurm(stepd|scriptd)$' || true; }

pid_of() { # the pid of slurmctld, or of slurmd on a node
    local pid what
    while read -r pid what; do
        if [[ $what == "$1" ]] && { [[ $# == 1 ]] || tr '\0' ' ' <"/proc/$pid/cmdline" | grep -q -- "-N $2 "; }; then echo "$pid"; fi
    done < <(daemons)
}

below() { # PID and all that it started; never anything when there is no PID
    local pid
    [[ $1 =~ ^[0-9]+$ ]] && (($1 > 1)) || return 0
    echo "$1"
    for pid in $(pgrep -P "$1"); do below "$pid"; done
}

members() { # pids of all that is this cluster's: the above, and what runs in its jobs. Only what is proven to be is listed.
    local pid what
    {
        while read -r pid what; do
            if [[ $what == slurmstepd ]]; then below "$pid"; else echo "$pid"; fi
        done < <(processes)
        { grep -lszFx -e "SLURM_CLUSTER_NAME=$name" /proc/[0-9]*/environ || true; } | cut -d/ -f3 | while read -r pid; do
            if grep -qsz '^SLURMD_NODENAME=' "/proc/$pid/environ"; then echo "$pid"; fi # else it is the shell of an salloc
        done
    } | sort -un | grep -vx -e "$$" -e "$PPID" || true
}

launch() { # a daemon that outlives this shell
    MYSQL_UNIX_PORT=$folder/db/sock setsid "$@" </dev/null >>"$folder/log/start" 2>&1 ||
        die "$1 does not start: $(tail -n 3 "$folder/log/start")"
}

wait_for() { # SECONDS WHAT COMMAND...: until the command succeeds
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || die "$what not ready in time. Last lines of the logs:$(tail -qn 5 "$folder"/log/* 2>/dev/null | sed '/./!d; s/^/\n    /' | grep .)"
        sleep 0.2
    done
}

ours() { [[ -f $folder/xnets-slurm-cluster ]]; }
answers() { ours && [[ -n $(pid_of slurmctld) ]] && timeout 10 scontrol ping 2>/dev/null | grep -q 'is UP'; }
idle() { [[ $(timeout 10 sinfo -h -N -p low -t idle -o %N | wc -l) == 2 ]]; }
gone() { ! [[ -e /proc/$1 ]] || grep -q '^State:.Z' "/proc/$1/status"; }
need_up() { ours || die "no cluster is up in $folder; start one with: slurm/local_cluster.sh up --folder $folder"; }

free_ports() { # N free ports, below those the kernel hands out
    local found=() port
    while ((${#found[@]} < $1)); do
        port=$((10000 + RANDOM % 20000))
        [[ " ${found[*]} " == *" $port "* ]] || (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || found+=("$port")
    done
    echo "${found[@]}"
}

# ---- what the commands do

missing() { # packages that are not there
    command -v slurmctld >/dev/null && command -v slurmd >/dev/null && command -v sbatch >/dev/null || echo slurm-wlm
    command -v munged >/dev/null || echo munge
    [[ $accounting == no ]] || command -v slurmdbd >/dev/null || echo slurmdbd
    [[ $accounting == no ]] || { command -v mariadbd && command -v mariadb-install-db; } >/dev/null || echo mariadb-server
}

install() {
    local packages policy=/usr/sbin/policy-rc.d
    packages=$(missing | xargs)
    [[ -n $packages ]] || { say "All packages are there."; return; }
    command -v apt-get >/dev/null || die "packages are missing and there is no apt-get here; install by this system's means: $packages"
    [[ $(id -u) == 0 ]] || die "packages are missing; ask for: sudo apt-get install $packages"
    if [[ ! -e $policy ]]; then # says no to every start of a service while apt works
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
        printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy"
    fi
    # shellcheck disable=SC2086  # one word a package
    { DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $packages ||
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $packages; }; } >&2 ||
        die "apt-get could not install $packages; its own words are above."
    say "Installed: $packages"
}

write_configuration() {
    local ports memory host storage="AccountingStorageType=accounting_storage/none" i
    read -ra ports < <(free_ports 4)
    memory=$(awk '/^MemTotal/ {print int($2 / 1024)}' /proc/meminfo)
    host=$(hostname -s)
    if [[ $accounting == yes ]]; then
        storage="AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=${ports[3]}
AccountingStoragePass=$folder/munge.sock"
        (umask 077 && cat >"$folder/slurmdbd.conf") <<END
AuthType=auth/munge
AuthInfo=socket=$folder/munge.sock
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=${ports[3]}
SlurmUser=$user
LogFile=$folder/log/slurmdbd
PidFile=$folder/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=$user
StorageLoc=slurm
CommitDelay=1
END
    fi
    for i in 0 1; do ln -s /dev/null "$folder/gpu$i"; done # slurmd wants a device file with a number at its end
    echo "NodeName=n[1-2] Name=gpu File=$folder/gpu[0-1]" >"$folder/gres.conf"
    cat >"$conf" <<END
ClusterName=$name
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${ports[0]}
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
CryptoType=crypto/munge
# a requeued job may not start before its old credential has expired: 5 s here instead of 120
AuthInfo=socket=$folder/munge.sock,cred_expire=5
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool.%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.%n.pid
SlurmctldLogFile=$folder/log/slurmctld
SlurmdLogFile=$folder/log/slurmd.%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
PropagateResourceLimits=NONE
# memory: measured every second, a job over its --mem is killed
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
$storage
# quick to notice, quick to act
SlurmctldTimeout=10
SlurmdTimeout=10
MessageTimeout=10
KillWait=5
InactiveLimit=0
MinJobAge=300
ReturnToService=2
JobRequeue=1
MaxJobCount=10000
MaxArraySize=$max_array
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,sched_min_interval=100000,bf_interval=2,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SlurmdParameters=config_overrides
DefMemPerCPU=$((memory / cpus > 0 ? memory / cpus : 1))
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
GresTypes=gpu
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=${ports[1]} CPUs=$cpus RealMemory=$memory Gres=gpu:2 State=UNKNOWN
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=${ports[2]} CPUs=$cpus RealMemory=$memory Gres=gpu:2 State=UNKNOWN
PartitionName=low Nodes=n[1-2] Default=YES PriorityTier=1 GraceTime=10 PreemptMode=REQUEUE MaxTime=INFINITE State=UP
PartitionName=high Nodes=n[1-2] PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE State=UP
END
}

start_accounting() {
    say "Starting MariaDB and slurmdbd ..."
    mkdir -m 700 "$folder/db"
    launch mariadb-install-db --no-defaults --user="$user" --datadir="$folder/db" --skip-test-db
    # its socket's folder is this user's, there is no network: whoever can reach it may do anything
    chmod 700 "$folder/db"
    launch bash -c 'mariadbd "$@" &' mariadbd --no-defaults --user="$user" --datadir="$folder/db" --socket="$folder/db/sock" \
        --pid-file="$folder/db/pid" --log-error="$folder/log/mariadb" --skip-networking --skip-grant-tables \
        --innodb-buffer-pool-size=64M --innodb-log-file-size=64M --innodb-lock-wait-timeout=900
    wait_for 40 "MariaDB is" test -S "$folder/db/sock"
    launch slurmdbd
    wait_for 20 "slurmdbd is" sacctmgr -n list cluster
    sacctmgr -iQ add cluster "$name" >/dev/null
    sacctmgr -iQ add account test cluster="$name" description=test organization=test >/dev/null
    sacctmgr -iQ add user "$user" account=test cluster="$name" adminlevel=admin >/dev/null
}

start_controller() { launch slurmctld -f "$conf"; wait_for 20 "slurmctld is" answers; }
start_node() { launch slurmd -f "$conf" -N "$1"; }

up() {
    local packages
    packages=$(missing | xargs)
    [[ -z $packages ]] || die "packages are missing: run slurm/local_cluster.sh install$([[ $accounting == no ]] || echo ' --accounting') as root, or apt-get install $packages"
    if answers; then
        [[ $accounting == no || -f $folder/slurmdbd.conf ]] || die "it is up without accounting; take it down first."
        say "The cluster is up in $folder."
        show_env
        return
    fi
    if ours; then say "Clearing away what is left of a cluster in $folder ..."; down; fi
    [[ ! -e $folder || -d $folder ]] || die "$folder is there and is no folder; choose another --folder."
    [[ -z $(ls -A "$folder" 2>/dev/null) ]] || die "$folder holds something else; choose another --folder."
    mkdir -p "$folder" || die "cannot make $folder; choose another --folder."
    touch "$folder/xnets-slurm-cluster"
    trap 'say "The start failed; clearing away."; down' EXIT
    mkdir "$folder/log" "$folder/state" "$folder/spool.n1" "$folder/spool.n2"
    write_configuration
    say "Starting munged ..."
    (umask 077 && head -c 128 /dev/urandom >"$folder/munge.key")
    launch munged --force --num-threads=2 --key-file="$folder/munge.key" --socket="$folder/munge.sock" \
        --pid-file="$folder/munged.pid" --log-file="$folder/log/munged" --seed-file="$folder/munge.seed"
    [[ $accounting == no ]] || start_accounting
    say "Starting slurmctld and two slurmd ..."
    start_controller
    start_node n1
    start_node n2
    wait_for 30 "The two nodes are" idle
    trap - EXIT
    say "The cluster is up in $folder."
    show_env
}

show_env() { echo "export SLURM_CONF=$conf"; }

status() {
    need_up
    echo "folder: $folder (accounting: $([[ -f $folder/slurmdbd.conf ]] && echo yes || echo no))"
    echo "daemons: $(daemons | awk '{print $2 " (" $1 ")"}' | sort | paste -sd, | sed 's/,/, /g')"
    answers || die "the controller does not answer; its log is $folder/log/slurmctld"
    timeout 10 sinfo -N -o '%6N %9P %10T %8c %8m %G'
    echo "jobs: $(timeout 10 squeue -h -r -o %T | sort | uniq -c | awk '{print $1, tolower($2)}' | paste -sd, | sed 's/,/, /g')"
}

down() {
    local try pids
    trap - EXIT
    ours || [[ -z $(ls -A "$folder" 2>/dev/null) ]] || die "$folder is not a cluster's folder and is left alone."
    if ours && answers; then # ask first
        timeout 10 scancel --full -u "$user" 2>/dev/null || true
        for ((try = 0; try < 40; try++)); do
            [[ -n $(timeout 10 squeue -h -t R,CG,CF,S -o %i 2>/dev/null) ]] || break
            sleep 0.2
        done
    fi
    for ((try = 0; try < 50; try++)); do # whatever is left, and what it starts meanwhile
        pids=$(members | xargs)
        [[ -n $pids ]] || break
        # shellcheck disable=SC2086  # pids
        kill -9 $pids 2>/dev/null || true
        sleep 0.1
    done
    [[ -z $pids ]] || die "these processes of the cluster do not end: $pids"
    if ours; then rm -rf -- "$folder"; say "The cluster is down; $folder is removed."
    else say "No cluster is up in $folder."; fi
}

stop() { # SIGNAL DAEMON [NODE]: end a daemon, not its job steps
    local pid
    need_up
    pid=$(pid_of "${@:2}")
    [[ -n $pid ]] || die "${*: -1} is not running."
    kill "-$1" "$pid"
    wait_for 15 "The end of ${*:2} is" gone "$pid"
    say "Stopped ${*:2} ($pid)."
}

start() {
    need_up
    [[ -z $(pid_of "$@") ]] || die "${*: -1} is running."
    if [[ $1 == slurmctld ]]; then start_controller; else start_node "$2"; fi
    say "Started $*."
}

case $command in
    env) need_up; show_env ;;
    stop-controller) stop TERM slurmctld ;;
    kill-controller) stop KILL slurmctld ;;
    start-controller) start slurmctld ;;
    stop-node) stop KILL slurmd "$node" ;;
    start-node) start slurmd "$node" ;;
    *) "$command" ;;
esac
