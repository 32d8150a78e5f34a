import ArgumentParser
import BenchmarkBodies
import EventLog
import Foundation

struct StreamBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "streams", abstract: "Picks fields out of JSON events, and folds them, on one thread.")

    @Option(help: "A file with one JSON event a line.")
    var events: String

    @Option(help: "A directory for the log and the state; what is in it is lost.")
    var directory: String

    @Option(help: "Events to fold.")
    var count = 2_000_000

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
        try FoldBodies.fill(log, payloads: lines, events: count)
        try log.maintain()
        for round in 1...3 {
            let fold = try FoldBodies.fold(log, stateFile: directory + "/state\(round).sqlite")
            guard fold.answers == count else { throw ValidationError("\(fold.answers) of \(count) were folded") }
            Figure(name: "fold.sliding-hour", value: fold.perSecond, unit: "events/s").print()
            let typed = try FoldBodies.foldTyped(log, stateFile: directory + "/typed\(round).sqlite")
            guard typed.answers == count else { throw ValidationError("\(typed.answers) of \(count) were folded") }
            Figure(name: "fold.typed-hour", value: typed.perSecond, unit: "events/s").print()
        }
    }
}
