# shellcheck shell=bash
docker_answers() { return 1; }
