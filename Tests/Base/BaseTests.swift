import Base
import Foundation
import Testing

@Suite struct BaseTests {
    @Test(arguments: [
        ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
    ]) func digestsAreSHA256(text: String, hex: String) {
        #expect(Digest.of([UInt8](text.utf8)).hex == hex)
        #expect(Digest(hex: hex)?.hex == hex)
        var stream = DigestStream()
        for byte in text.utf8 { stream.update([byte]) }
        #expect(stream.finish().hex == hex)
    }

    /// Against Foundation: random documents with escapes, unicode and numbers of every shape, and damaged copies of them.
    @Test(arguments: 0..<20) func parserAgreesWithFoundation(seed: Int) throws {
        var random = SeededRandom(seed: UInt64(seed))
        let document = JSONDocument()
        for _ in 0..<300 {
            var text = Self.randomJSON(&random, 0)
            if Int.random(in: 0..<3, using: &random) == 0 { Self.damage(&text, &random) }
            let reference = try? JSONSerialization.jsonObject(with: Data(text), options: [.fragmentsAllowed])
            let ours = (try? document.parse(text)) != nil
            // Foundation takes some things RFC 8259 does not (leading zeros, say): refusing more is right, taking more is not.
            if ours { #expect(reference != nil, "only ours takes \(String(decoding: text, as: UTF8.self))") }
            guard ours, let reference, let value = try? document.value() else { continue }
            #expect(Self.same(value, reference), "\(String(decoding: text, as: UTF8.self))")
            #expect((try? JSON(parsing: value.canonical))?.canonical == value.canonical)
        }
    }

    static func randomJSON(_ random: inout SeededRandom, _ depth: Int) -> [UInt8] {
        let pieces = [
            "\"a\\n\\u00e9\\ud83d\\ude00b\"", "\"ü€😀\"", "-0.0", "1e5", "12345678901234567890", "0.1",
            "1.7976931348623157e308", "-1", "true", "null", "\"\"", "3.141592653589793", "5e-324", "123456.789e-3",
        ]
        switch Int.random(in: 0..<(depth > 3 ? 6 : 10), using: &random) {
        case 0..<4: return [UInt8](pieces[Int.random(in: 0..<pieces.count, using: &random)].utf8)
        case 4..<6: return [UInt8]("\(Double.random(in: -1e6...1e6, using: &random))".utf8)
        case 6..<8:
            var out: [UInt8] = [0x5B]
            let count = Int.random(in: 0..<4, using: &random)
            for index in 0..<count {
                if index > 0 { out += [0x2C, 0x20] }
                out += randomJSON(&random, depth + 1)
            }
            return out + [0x5D]
        default:
            var out: [UInt8] = [0x7B]
            let count = Int.random(in: 0..<4, using: &random)
            for index in 0..<count {
                if index > 0 { out += [0x2C] }
                out += [UInt8]("\"k\(index)\\t\": ".utf8) + randomJSON(&random, depth + 1)
            }
            return out + [0x7D]
        }
    }

    static func damage(_ text: inout [UInt8], _ random: inout SeededRandom) {
        guard !text.isEmpty else { return }
        let place = Int.random(in: 0..<text.count, using: &random)
        switch Int.random(in: 0..<3, using: &random) {
        case 0: text.remove(at: place)
        case 1: text[place] = UInt8.random(in: 0...255, using: &random)
        default: text.removeLast(text.count - place)
        }
    }

    static func same(_ ours: JSON, _ theirs: Any) -> Bool {
        switch ours {
        case .null: return theirs is NSNull
        case .bool(let value): return (theirs as? Bool) == value
        case .int(let value): return (theirs as? NSNumber)?.doubleValue == Double(value)
        // Foundation goes by way of Decimal for long numbers and is off by an ulp; exactness is tested below.
        case .double(let value):
            return (theirs as? NSNumber).map { abs($0.doubleValue - value) <= abs(value) * 1e-15 } ?? false
        case .string(let value): return (theirs as? String) == value
        case .array(let items):
            guard let list = theirs as? [Any], list.count == items.count else { return false }
            return zip(items, list).allSatisfy { same($0, $1) }
        case .object(let members):
            guard let map = theirs as? [String: Any], map.count == members.count else { return false }
            return members.allSatisfy { key, value in map[key].map { same(value, $0) } ?? false }
        }
    }

    @Test func numbersSurviveTheirText() {
        var random = SeededRandom(seed: 3)
        for _ in 0..<100_000 {
            let value = Double(bitPattern: random.next())
            guard value.isFinite else { continue }
            var text: [UInt8] = []
            JSONNumber.append(value, to: &text)
            #expect(text.withUnsafeBufferPointer { JSONNumber.double($0) }?.bitPattern == value.bitPattern)
            let narrow = Float(bitPattern: UInt32(truncatingIfNeeded: random.next()))
            guard narrow.isFinite else { continue }
            text = []
            JSONNumber.append(narrow, to: &text)
            // By way of a double, as vectors are read.
            let back = text.withUnsafeBufferPointer { JSONNumber.double($0) }.map { Float($0) }
            #expect(back?.bitPattern == narrow.bitPattern)
        }
    }

    @Test func varintsAreZigZag() throws {
        var writer = ByteWriter()
        let values: [Int64] = [0, -1, 1, 63, 64, -64, -65, 300, .max, .min]
        for value in values {
            let before = writer.count
            writer.append(varint: value)
            #expect(writer.count - before == ByteWriter.varintLength(value))
        }
        #expect(Array(writer.bytes.prefix(3)) == [0, 1, 2])
        try writer.bytes.withUnsafeBytes { raw in
            var reader = ByteReader(raw)
            for value in values {
                let back = try reader.varint()
                #expect(back == value)
            }
        }
    }

    @Test(
        arguments: [
            ("2013-01-01T10:15:00Z", 1_357_035_300_000), ("1969-12-31T23:59:59.999Z", -1),
            ("2000-02-29T00:00:00+01:00", 951_778_800_000),
            ("0001-01-01T00:00:00Z", -62_135_596_800_000),
        ] as [(String, Int64)]) func instantsAreRFC3339(text: String, milliseconds: Int64)
    {
        #expect(Instant(text)?.milliseconds == milliseconds)
        #expect(Instant(Instant(milliseconds: milliseconds).description)?.milliseconds == milliseconds)
    }

    @Test(arguments: [
        "2013-02-29T00:00:00Z", "2013-01-01 10:15", "2013-13-01T00:00:00Z", "2013-01-01T25:00:00Z", "x",
        "2013-01-01T00:00:00",
    ])
    func badInstantsAreRefused(text: String) { #expect(Instant(text) == nil) }

    @Test(arguments: ["America/New_York", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe", "UTC", "+05:30"])
    func timeZonesAgreeWithFoundation(name: String) throws {
        let ours = try TimeZoneRules.named(name)
        let theirs = try #require(name == "+05:30" ? TimeZone(secondsFromGMT: 19_800) : TimeZone(identifier: name))
        var random = SeededRandom(seed: 9)
        for _ in 0..<2000 {
            let seconds = Int64.random(in: 0..<4_000_000_000, using: &random)
            let offset = theirs.secondsFromGMT(for: Date(timeIntervalSince1970: Double(seconds)))
            #expect(ours.offset(at: Instant(milliseconds: seconds * 1000)) == offset, "\(name) at \(seconds)")
        }
    }

    @Test(
        arguments: [("90s", 90_000), ("1h30m", 5_400_000), ("30d", 2_592_000_000), ("250ms", 250)] as [(String, Int64)])
    func spansAreRead(text: String, milliseconds: Int64) { #expect(parseSpan(text) == milliseconds) }

    @Test(arguments: ["", "3", "h", "3w", "-1h", "99999999999999999999d"]) func badSpansAreRefused(text: String) {
        #expect(parseSpan(text) == nil)
    }
}
