import Base
import EventLog
import Foundation
import Node
import RecordFormat
import Testing

/// A registered version holds what it was made from until somebody releases it.
@Suite struct ModelPinTests {
    private func event(_ id: String, _ json: String) -> NewEvent {
        NewEvent(id: id, source: "test", type: "t", time: Instant(milliseconds: 0), data: [UInt8](json.utf8))
    }

    @Test func versionsHoldTheirInputs() throws {
        let scratch = try ScratchDirectory()
        let log = try EmbeddedLog.open(scratch.path)
        let input = TopicPartition("input", 0)
        for name in ["input", "training.requested", "models.registered", "headrace.releases"] {
            try log.declare(TopicLayout(name: name, partitions: 1))
        }
        func add(_ topic: String, _ events: [NewEvent]) throws {
            _ = try log.append(LogAppend(principal: "p", events: events.map { (topic, 0, $0) }))
        }
        func register(_ version: Int, asOf end: Int) throws {
            try add(
                "training.requested",
                [event("train:m@\(version)", #"{"asOf":{"input/0":\#(end),"other/0":3}}"#)])
            try add(
                "models.registered",
                [event("r\(version)", #"{"model":"m","version":\#(version),"request":"train:m@\#(version)"}"#)])
        }
        try add("input", (0..<50).map { event("e\($0)", "{}") })
        try register(1, asOf: 20)
        var pins = ModelPins(log: log)
        // An input that is no topic here any more costs nothing but its own pin.
        try pins.runSlice()
        #expect(log.pins == [Pin(name: "model:m@1", ranges: [input: 0..<20])])
        #expect(errorCode { try log.trim(input, before: 10) } == "pinned")
        try register(2, asOf: 40)
        try pins.runSlice()
        #expect(log.pins.map(\.name) == ["model:m@1", "model:m@2"])
        for name in log.pins.map(\.name) { try ModelPins.release(name, log) }
        #expect(log.pins.isEmpty)
        try log.trim(input, before: 10)
        // Begun anew, as after a restart: what was released stays so, and what comes holds what is left.
        pins = ModelPins(log: log)
        try register(3, asOf: 45)
        try pins.runSlice()
        #expect(log.pins == [Pin(name: "model:m@3", ranges: [input: 10..<45])])
        log.close()
    }
}
