import Foundation
import Simulation
import Testing

@Suite struct LogSimulationTests {
    /// 2,000 lives of a log on a disk that tears, reorders, loses and rots.
    @Test(arguments: 0..<8) func logsKeepTheirPromises(part: UInt64) throws {
        var sum = LogSimulation.Outcome()
        for number in part * 250..<(part + 1) * 250 {
            // In a third of them reads fail, in another while the log is opened, too.
            let from = [0, LogSimulation.readsFailFrom, LogSimulation.openingsFailFrom][Int(number % 3)]
            let seed = number + from
            let outcome = try LogSimulation.run(seed: seed)
            sum.events += outcome.events
            sum.crashes += outcome.crashes
            sum.rewritten += outcome.rewritten
            sum.rotten += outcome.rotten
        }
        // A life in which nothing happens proves nothing.
        #expect(sum.events > 5000 && sum.crashes > 200 && sum.rewritten > 1_000_000 && sum.rotten > 20)
    }

    /// Every seed that ever failed, also one from a night.
    @Test func seedsThatOnceFailed() throws {
        let text = try String(contentsOfFile: projectDirectory + "/Tests/Simulation/seeds.txt", encoding: .utf8)
        let seeds = text.split(separator: "\n").filter { !$0.hasPrefix("#") }.compactMap { UInt64($0) }
        #expect(seeds.count >= 20)
        for seed in seeds { _ = try LogSimulation.run(seed: seed) }
    }

    /// A bug that is put in on purpose is found soon.
    @Test(arguments: SimulatedVolume.Canary.allCases) func canariesAreFound(canary: SimulatedVolume.Canary) {
        let found = (UInt64(0)..<50).contains { seed in
            (try? LogSimulation.run(seed: seed, canary: canary)) == nil
        }
        #expect(found)
    }
}
