import ArgumentParser
import BenchmarkBodies
import EventLog
import Foundation
import StreamExamples

struct StreamBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "streams", abstract: "Picks fields out of JSON events, and folds them, on one thread.")

    @Option(help: "A file with one JSON event a line.")
    var events: String

    @Option(help: "A directory for the log and the state; what is in it is lost.")
    var directory: String

    @Option(help: "Events to fold.")
    var count = 2_000_000

    @Option(help: "Partitions of the topic, each folded by a task of its own.")
    var tasks = 4

    @Option(help: "Measure the figure of this name alone, for a profiler.")
    var only: String?

    @Option(help: "Distinct keys of the figures that are about many.")
    var keys = 1_000_000

    @Option(help: "How often the file is gone through.")
    var rounds = 5

    func run() throws {
        let lines = try payloads(events)
        let picked = try StreamBodies.project(lines, rounds: rounds)
        let parsed = try StreamBodies.parse(lines, rounds: rounds)
        guard picked.checked == parsed.checked else { throw ValidationError("both ways must find the same values") }
        Figure(name: "json.project", value: picked.perSecond, unit: "events/s").print()
        Figure(name: "json.parse", value: parsed.perSecond, unit: "events/s").print()
        try? FileManager.default.removeItem(atPath: directory)
        let log = try EmbeddedLog.open(directory + "/log")
        defer { log.close() }
        try FoldBodies.fill(log, payloads: lines, events: count, partitions: tasks)
        try log.maintain()
        for round in 1...3 where only == nil || only == "fold.sliding-hour" {
            let place = "\(directory)/round\(round)"
            let fold = try FoldBodies.fold(log, stateDirectory: place + "/hour")
            guard fold.answers == count else { throw ValidationError("\(fold.answers) of \(count) were folded") }
            Figure(name: "fold.sliding-hour", value: fold.perSecond, unit: "events/s").print()
        }
        if only == nil || only == "latency" { try measureLatency(lines) }
        if only == nil || only == "keys" { try measureKeys(lines) }
        if only == nil || only == "keys" || only == "checkpoint" { try measureCheckpoint(lines) }
        for (name, make) in [
            ("fold.typed-hour", FlightStreams.carrierHours), ("fold.typed-hour-and-day", FlightStreams.carrierDays),
        ] where only == nil || only == name {
            let output = make().build().outputs[0]
            let typed = try FoldBodies.foldTyped(log, stateDirectory: directory + "/" + name, output: output, make)
            guard typed.answers == count else { throw ValidationError("\(typed.answers) of \(count) were folded") }
            Figure(name: name, value: typed.perSecond, unit: "events/s").print()
        }
    }

    /// For state that is more than ten times as large.
    private static let smallMemory = 16 << 20

    /// Events a second, and for how long.
    private static let steady = (perSecond: 50_000, seconds: 10.0)

    private func measureLatency(_ lines: [[UInt8]]) throws {
        let log = try EmbeddedLog.open(directory + "/latency")
        defer { log.close() }
        let found = try LatencyBodies.endToEnd(
            log, payloads: lines, stateDirectory: directory + "/latency-state", perSecond: Self.steady.perSecond,
            seconds: Self.steady.seconds)
        Figure(name: "latency.rate", value: found.perSecond, unit: "events/s").print()
        Figure(name: "latency.p50", value: found.p50, unit: "ms").print()
        Figure(name: "latency.p99", value: found.p99, unit: "ms").print()
        Figure(name: "latency.worst", value: found.worst, unit: "ms").print()
    }

    private func measureKeys(_ lines: [[UInt8]]) throws {
        let many = try EmbeddedLog.open(directory + "/many")
        defer { many.close() }
        try FoldBodies.fill(many, payloads: lines, events: count, partitions: tasks, distinctKeys: keys)
        try many.maintain()
        let make = StateBodies.keyedDays
        let typed = try FoldBodies.foldTyped(
            many, stateDirectory: directory + "/keyed", output: make().build().outputs[0], make)
        Figure(name: "fold.million-keys", value: typed.perSecond, unit: "events/s").print()
    }

    private func measureCheckpoint(_ lines: [[UInt8]]) throws {
        let one = try EmbeddedLog.open(directory + "/one")
        defer { one.close() }
        try FoldBodies.fill(
            one, payloads: lines, events: keys * 2, partitions: 1, distinctKeys: keys)
        let state = try StateBodies.checkpoint(one, stateDirectory: directory + "/checkpoint", keys: keys)
        Figure(name: "checkpoint.million-keys", value: state.seconds, unit: "s").print()
        Figure(name: "checkpoint.stall", value: state.stall * 1000, unit: "ms").print()
        Figure(name: "restart.million-keys", value: state.restart, unit: "s").print()
        let small = try StateBodies.foldWithin(
            one, stateDirectory: directory + "/small", memory: Self.smallMemory)
        Figure(name: "fold.small-memory", value: small.perSecond, unit: "events/s").print()
        Figure(name: "fold.small-memory.resident", value: Double(small.resident) / 1e6, unit: "MB").print()
        Figure(name: "fold.small-memory.stored", value: Double(small.stored) / 1e6, unit: "MB").print()
    }
}
