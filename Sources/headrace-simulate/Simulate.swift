import ArgumentParser
import Base
import Simulation

@main
struct Simulate: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "headrace-simulate",
        abstract: "Seeded lives of an embedded log on a simulated disk that tears, loses, rots and fails.")

    @Option(help: "How many seeds to live through.")
    var seeds: UInt64 = 2000

    @Option(help: "The first seed.")
    var from: UInt64 = 0

    @Option(
        help: "Put a bug in on purpose: \(SimulatedVolume.Canary.allCases.map(\.rawValue).joined(separator: ", ")).")
    var canary: String?

    @Flag(help: "Print every step.")
    var trace = false

    @Flag(help: "Go on after a failure.")
    var all = false

    func run() throws {
        var bug: SimulatedVolume.Canary?
        if let canary {
            guard let known = SimulatedVolume.Canary(rawValue: canary) else {
                throw ValidationError("there is no canary '\(canary)'")
            }
            bug = known
        }
        var failures = 0
        var sum = LogSimulation.Outcome()
        for seed in from..<from + seeds {
            do {
                let outcome = try LogSimulation.run(seed: seed, canary: bug, trace: trace)
                sum.appends += outcome.appends
                sum.events += outcome.events
                sum.crashes += outcome.crashes
                sum.restarts += outcome.restarts
                sum.rewritten += outcome.rewritten
                sum.rotten += outcome.rotten
            } catch {
                failures += 1
                print(error)
                if !all { break }
            }
        }
        print(
            "\(seeds) seeds, \(sum.appends) appends, \(sum.events) events, \(sum.crashes) power failures, \(sum.restarts) restarts, \(sum.rewritten) bytes moved, \(sum.rotten) rotten, \(failures) failures"
        )
        if failures > 0 { throw ExitCode(1) }
    }
}
