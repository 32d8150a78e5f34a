#!/usr/bin/env python3
"""Checks the deployment files without Docker; needs PyYAML, and uses promtool where it is on the PATH or in $PROMTOOL.

usage: check.py [--root DIR] [--require-promtool] METRICS
METRICS is a file of metric names, one a line, or what GET /metrics answered. Prints one line a fault; exits 1 on any.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

import yaml

SERVICES = {"kafka", "node", "prometheus", "grafana"}
LOOPBACK = ("127.0.0.1:", "[::1]:")
# What Prometheus itself adds to every scrape.
SCRAPE_METRICS = {"up", "scrape_duration_seconds", "scrape_samples_scraped"}
WORDS = {"and", "or", "unless", "by", "without", "on", "ignoring", "group_left", "group_right", "offset", "bool", "inf",
         "nan", "start", "end", "atan2"}
faults = []


def fault(place, text):
    faults.append(f"{place}: {text}")


def metric_names(path):
    """Names of a plain list or of the Prometheus text format."""
    names = set()
    for line in open(path, encoding="utf-8"):
        line = line.strip()
        if line.startswith("# TYPE "):
            names.add(line.split()[2])
        elif line and not line.startswith("#"):
            names.add(re.split(r"[\s{]", line)[0])
    return names


def named_metrics(expression):
    """The metric names in a PromQL expression: identifiers that are no label, function, keyword or string."""
    text = re.sub(r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\])*\'|`[^`]*`', '""', expression)
    text = re.sub(r"\{[^}]*\}", " ", text)
    text = re.sub(r"\[[^\]]*\]", " ", text)
    text = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", " ", text)
    found = set()
    for match in re.finditer(r"(?<![\w:$.])([a-zA-Z_:][\w:]*)\s*(\(?)", text):
        if not match.group(2) and match.group(1).lower() not in WORDS:
            found.add(match.group(1))
    return found


def load(root, path, parse):
    try:
        with open(os.path.join(root, path), encoding="utf-8") as file:
            return parse(file)
    except (OSError, yaml.YAMLError, json.JSONDecodeError) as error:
        fault(path, f"cannot be read: {error}")
        return None


def pinned(image):
    """A tag that is a version, or a digest; a variable or `latest` is neither."""
    if "@sha256:" in image:
        return True
    tag = image.rsplit("/", 1)[-1].partition(":")[2]
    return bool(tag) and "$" not in image and re.match(r"(latest|main|master|edge|nightly)\b", tag) is None


def check_compose(root):
    path = "docker-compose.yml"
    compose = load(root, path, yaml.safe_load)
    if compose is None:
        return {}
    services = compose.get("services", {})
    for name in sorted(SERVICES - services.keys()):
        fault(path, f"no service '{name}'")
    volumes = compose.get("volumes") or {}
    for name, service in services.items():
        place = f"{path}: {name}"
        if "build" not in service and not pinned(service.get("image", "")):
            fault(place, f"image '{service.get('image', '')}' has no version")
        for port in service.get("ports", []):
            address = port.get("host_ip", "") + ":" if isinstance(port, dict) else str(port)
            if not address.startswith(LOOPBACK):
                fault(place, f"port {port} is published beyond this machine")
        if service.get("network_mode") == "host" or service.get("privileged"):
            fault(place, "the host's network or every privilege is no part of this")
        health = service.get("healthcheck") or {}
        if not health.get("test") or health.get("disable"):
            fault(place, "no health check")
        needs = service.get("depends_on", {})
        for other in needs:
            if other not in services:
                fault(place, f"depends on '{other}', which is no service")
            elif isinstance(needs, list) or needs[other].get("condition") != "service_healthy":
                fault(place, f"does not wait until '{other}' is healthy")
        for volume in service.get("volumes", []):
            source = volume.get("source", "") if isinstance(volume, dict) else str(volume).split(":")[0]
            if source.startswith((".", "/")):
                if not os.path.exists(os.path.join(root, source)):
                    fault(place, f"mounts {source}, which is not there")
            elif source not in volumes:
                fault(place, f"volume '{source}' is not declared")
    used = json.dumps(services)
    for name in volumes:
        if f'"{name}:' not in used:
            fault(path, f"volume '{name}' is used by nobody")
    check_kafka(path, services)
    return services


def check_kafka(path, services):
    """The node's address is a listener that the broker advertises under that very name; one broker, one copy."""
    settings = services.get("kafka", {}).get("environment", {})
    advertised = dict(part.split("://") for part in settings.get("KAFKA_ADVERTISED_LISTENERS", "").split(",") if part)
    command = services.get("node", {}).get("command", [])
    words = " ".join(command if isinstance(command, list) else [command]).replace("=", " ").split()
    for option in ("--kafka", "--host"):
        if option not in words[:-1]:
            fault(path, f"the node's command has no {option}")
            return
    if words[words.index("--kafka") + 1] not in advertised.values():
        fault(path, f"the node's --kafka is none of the advertised {sorted(advertised.values())}")
    if words[words.index("--host") + 1] != "0.0.0.0":
        fault(path, "a node that listens on 127.0.0.1 only cannot be reached from outside its container")
    for name, value in {
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false", "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1", "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
    }.items():
        if str(settings.get(name, "")).lower() != value:
            fault(path, f"kafka: {name} must be {value} on one broker")


def check_dockerfile(root):
    path = "Dockerfile"
    text = load(root, path, lambda file: file.read())
    if text is None:
        return
    text = re.sub(r"\\\n", " ", text)
    stages = re.findall(r"(?m)^FROM\s+(\S+)(?:\s+AS\s+(\S+))?", text)
    known = set()
    for image, name in stages:
        if image not in known and not pinned(image):
            fault(path, f"image '{image}' has no version")
        known.add(name)
    if len(stages) < 2:
        fault(path, "one stage only: the image would hold the toolchain")
    users = re.findall(r"(?m)^USER\s+(\S+)", text.split("FROM ")[-1])
    if not users or users[-1] in ("root", "0"):
        fault(path, "it runs as root")
    ignored = load(root, ".dockerignore", lambda file: file.read().split("\n")) or []
    kept = {line[1:] for line in ignored if line.startswith("!")}
    for line in re.findall(r"(?m)^COPY\s+(?!--from)(.+)$", text):
        for source in line.split()[:-1]:
            name = source.split("/")[0]
            if name not in (".", "Package.resolve[d]") and "*" in ignored and name not in kept:
                fault(path, f"copies {source}, which .dockerignore leaves out")
    prepare = os.path.join(root, ".ci/prepare")
    if os.path.exists(prepare):
        match = re.search(r'(?m)^packages="([^"]*)"', open(prepare, encoding="utf-8").read())
        for package in match.group(1).split() if match else []:
            if package.startswith("lib") and package not in text:
                fault(path, f"{package} of .ci/prepare is not installed")


def check_prometheus(root, services):
    path = "deploy/prometheus.yml"
    config = load(root, path, yaml.safe_load) or {}
    targets = [t for job in config.get("scrape_configs", []) for s in job.get("static_configs", []) for t in s["targets"]]
    if "node:8080" not in targets:
        fault(path, "does not scrape node:8080")
    for target in targets:
        host = target.rsplit(":", 1)[0]
        if host not in services and host not in ("127.0.0.1", "localhost"):
            fault(path, f"scrapes {target}, which is no service")
    jobs = [job["job_name"] for job in config.get("scrape_configs", [])]
    if len(jobs) != len(set(jobs)):
        fault(path, "a job's name stands twice")
    return jobs


def check_grafana(root, names, jobs):
    """Returns every expression, as (place, PromQL with Grafana's variables filled in)."""
    base = "deploy/grafana/"
    sources = load(root, base + "provisioning/datasources/prometheus.yml", yaml.safe_load) or {}
    uids = {source.get("uid"): source.get("type") for source in sources.get("datasources", [])}
    if sources.get("datasources") and sum(bool(s.get("isDefault")) for s in sources["datasources"]) != 1:
        fault(base + "provisioning/datasources", "not exactly one default")
    providers = load(root, base + "provisioning/dashboards/headrace.yml", yaml.safe_load) or {}
    folders = [p["options"]["path"] for p in providers.get("providers", [])]
    mounts = json.dumps(load(root, "docker-compose.yml", yaml.safe_load) or {})
    for folder in folders:
        if f":{folder}" not in mounts:
            fault(base + "provisioning/dashboards", f"{folder} is mounted nowhere")
    path = base + "dashboards/headrace.json"
    board = load(root, path, json.load)
    if board is None:
        return []
    if board.get("schemaVersion") != 39:
        fault(path, f"schemaVersion {board.get('schemaVersion')}, not 39")
    variables = {v["name"]: v for v in board["templating"]["list"]}
    for name, variable in variables.items():
        if variable["type"] == "datasource" and variable["current"].get("value") not in uids:
            fault(path, f"variable {name} begins with '{variable['current'].get('value')}', which is not provisioned")
    if variables.get("job", {}).get("current", {}).get("value", jobs[0] if jobs else "") not in jobs:
        fault(path, "variable job begins with a job that prometheus.yml does not have")

    def check_source(place, source):
        uid = (source or {}).get("uid", "")
        named = re.fullmatch(r"\$\{?(\w+)\}?", uid)
        if named and variables.get(named.group(1), {}).get("type") == "datasource":
            return
        if uids.get(uid) != (source or {}).get("type") and uid != "-- Grafana --":
            fault(place, f"data source '{uid}' is not provisioned")

    for item in board.get("annotations", {}).get("list", []) + [v for v in variables.values() if v["type"] == "query"]:
        check_source(f"{path}: {item['name']}", item.get("datasource"))
    expressions = []
    for name, variable in variables.items():
        if variable["type"] == "query":
            inner = re.fullmatch(r"label_values\((.*),\s*\w+\)", variable["query"]["query"])
            if inner:
                expressions.append((f"{path}: variable {name}", inner.group(1)))
    ids, places = set(), {}
    for panel in board["panels"]:
        place = f"{path}: {panel['title']}"
        if panel["id"] in ids:
            fault(place, f"id {panel['id']} stands twice")
        ids.add(panel["id"])
        check_source(place, panel.get("datasource"))
        grid = panel["gridPos"]
        if grid["x"] + grid["w"] > 24:
            fault(place, "wider than the page")
        for x in range(grid["x"], grid["x"] + grid["w"]):
            for y in range(grid["y"], grid["y"] + grid["h"]):
                if places.setdefault((x, y), panel["title"]) != panel["title"]:
                    fault(place, f"lies over '{places[(x, y)]}'")
                    break
        if not panel["fieldConfig"]["defaults"].get("unit"):
            fault(place, "no unit")
        references = [t["refId"] for t in panel["targets"]]
        if len(references) != len(set(references)):
            fault(place, "a refId stands twice")
        for target in panel["targets"]:
            check_source(place, target.get("datasource"))
            expressions.append((place, target["expr"]))
    filled = []
    for place, expression in expressions:
        text = expression
        for name in sorted(variables, key=len, reverse=True):
            text = re.sub(r"\$\{?" + name + r"\b\}?", "x", text)
        text = re.sub(r"\$__(rate_interval|interval|range)\b", "5m", text)
        if "$" in text:
            fault(place, f"an unknown variable in {expression}")
        if not re.search(r"\$__range\b", expression) and re.search(r"(rate|increase)\([^[]*\[(?!\$__rate_interval)", expression):
            fault(place, f"a rate over a fixed window: {expression}")
        used = named_metrics(text)
        for name in sorted(used - names - SCRAPE_METRICS):
            fault(place, f"there is no metric '{name}'")
        if not used:
            fault(place, f"names no metric: {expression}")
        filled.append((place, text))
    return filled


def check_with_promtool(root, expressions, required):
    promtool = os.environ.get("PROMTOOL") or shutil.which("promtool")
    if not promtool:
        if required:
            fault("promtool", "not installed (Debian: apt-get install prometheus)")
        return False
    run = lambda *words: subprocess.run([promtool, *words], capture_output=True, text=True, timeout=60)
    done = run("check", "config", os.path.join(root, "deploy/prometheus.yml"))
    if done.returncode:
        fault("promtool check config", (done.stdout + done.stderr).strip())
    with tempfile.TemporaryDirectory() as folder:
        rules = os.path.join(folder, "rules.yml")
        list_of = [{"record": f"check:expression{i}", "expr": text} for i, (_, text) in enumerate(expressions)]
        with open(rules, "w", encoding="utf-8") as file:
            yaml.safe_dump({"groups": [{"name": "dashboard", "rules": list_of}]}, file)
        done = run("check", "rules", rules)
        if done.returncode:
            fault("promtool check rules", (done.stdout + done.stderr).strip())
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("metrics")
    parser.add_argument("--root", default=os.path.dirname(os.path.abspath(__file__)))
    parser.add_argument("--require-promtool", action="store_true")
    options = parser.parse_args()
    names = metric_names(options.metrics)
    services = check_compose(options.root)
    check_dockerfile(options.root)
    jobs = check_prometheus(options.root, services) or []
    expressions = check_grafana(options.root, names, jobs)
    parsed = check_with_promtool(options.root, expressions, options.require_promtool)
    for line in faults:
        print(line)
    how = "parsed by promtool" if parsed else "not parsed: no promtool"
    print(f"{len(services)} services, {len(expressions)} expressions ({how}), {len(names)} metrics, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
