import ArgumentParser
import BenchmarkBodies
import Foundation

struct StreamBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "streams", abstract: "Picks fields out of JSON events, on one thread.")

    @Option(help: "A file with one JSON event a line.")
    var events: String

    @Option(help: "How often the file is gone through.")
    var rounds = 5

    func run() throws {
        let lines = try payloads(events)
        let picked = try StreamBodies.project(lines, rounds: rounds)
        let parsed = try StreamBodies.parse(lines, rounds: rounds)
        guard picked.checked == parsed.checked else { throw ValidationError("both ways must find the same values") }
        Figure(name: "json.project", value: picked.perSecond, unit: "events/s").print()
        Figure(name: "json.parse", value: parsed.perSecond, unit: "events/s").print()
    }
}
