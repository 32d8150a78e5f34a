import Base
import Catalog
import Features
import Streams
import Testing

/// A sample has every event of its keys, whatever keys come and in whatever order, and finds what differs.
@Suite struct ViewSampleTests {
    /// Labels of what stands most often: of as many different ones as come, the same after any restart.
    @Test func labelsOutliveRestarts() throws {
        var plan = WindowPlan(columnCount: 1)
        plan.read(.top, column: 0, span: 100_000, rank: 1)
        var (straight, restarted) = (WindowState(columnCount: 1), WindowState(columnCount: 1))
        func bytes(_ state: WindowState) -> [UInt8] {
            var writer = ByteWriter()
            state.encode(into: &writer)
            return writer.bytes
        }
        for number in 0..<500 {
            let now = Int64(number) * 1000
            let (row, texts) = ([Double(number)], ["t\(number)"])
            straight.add(time: now, row: row, texts: texts, plan: plan)
            restarted.add(time: now, row: row, texts: texts, plan: plan)
            let expected = (max(0, number - 99)...number).map { "t\($0)" }.min()
            #expect(straight.label(0, plan, at: now) == expected && restarted.label(0, plan, at: now) == expected)
            #expect(bytes(straight) == bytes(restarted), "\(number)")
            guard number % 37 == 0 else { continue }
            restarted = try bytes(restarted).withUnsafeBytes { raw in
                var reader = ByteReader(raw)
                return try WindowState(decoding: &reader)
            }
        }
    }

    @Test(arguments: 0..<30) func samplesAreWhole(seed: Int) throws {
        var random = SeededRandom(seed: UInt64(seed))
        let body = try JSON(
            parsing: [UInt8](
                #"{"name":"v","topic":"t","key":"data.k","aggregates":[{"name":"n","function":"count","window":"20s"},{"name":"s","function":"sum","of":"data.x","window":"50s"}],"latest":{"x":"data.x"}}"#
                    .utf8))
        let view = try FeatureView(Definition(kind: FeatureView.kind, name: "v", body: body))
        let size = Int.random(in: 1...12, using: &random)
        var sample = ViewSample(view, size: size)
        var events: [String: [(time: Int64, x: Double)]] = [:]
        let document = JSONDocument()
        let keys = Int.random(in: 1...60, using: &random)
        for number in 0..<600 {
            let time = Int64(number) * 200 - Int64.random(in: 0...3000, using: &random)
            let key = "k\(Int.random(in: 0..<keys, using: &random))"
            let x = Double(Int.random(in: 0...9, using: &random))
            let data = JSON.object(["k": .string(key), "x": .double(x)]).canonical
            try data.withUnsafeBytes { try document.parse($0) }
            sample.take(document, time: Instant(milliseconds: time), partition: number % 2, offset: Int64(number / 2))
            events[key, default: []].append((time, x))
            guard number % 7 == 0 else { continue }
            // In the middle of everything, every key of the sample is told whole.
            let now = Int64(number) * 200
            #expect(sample.keys.count == min(size, events.count))
            for key in sample.keys {
                let mine = (events[key] ?? []).filter { $0.time <= now }
                let found = sample.vector(key, at: Instant(milliseconds: now))
                #expect(
                    found?.values[0] == Double(mine.count { $0.time > now - 20_000 })
                        && found?.lastTime == mine.map(\.time).max(), "seed \(seed), \(number), \(key)")
                let sum = mine.filter { $0.time > now - 50_000 }.map(\.x)
                #expect(sum.isEmpty ? found?.values[1].isNaN == true : found?.values[1] == sum.reduce(0, +))
            }
            for key in events.keys where !sample.covers(key) {
                #expect(!sample.keys.contains(key) && sample.vector(key, at: Instant(milliseconds: now)) == nil)
            }
        }
    }
}
