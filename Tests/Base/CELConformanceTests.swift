import Base
import Foundation
import Testing

/// The simple test files of cel-spec. What needs protobuf messages is counted and listed, and must be refused.
@Suite struct CELConformanceTests {
    /// Files, the tests in them that are checked here, and those that need messages.
    @Test(arguments: [
        ("basic", 43, 0), ("comparisons", 334, 72), ("conversions", 109, 0), ("fields", 60, 0), ("fp_math", 30, 0),
        ("integer_math", 64, 0), ("lists", 39, 0), ("logic", 30, 0), ("macros", 44, 0), ("macros2", 46, 0),
        ("namespace", 14, 0), ("optionals", 59, 11), ("parse", 193, 26), ("plumbing", 5, 0), ("string", 51, 0),
        ("timestamps", 78, 0), ("wrappers", 0, 36),
    ]) func passes(file: String, checked: Int, messages: Int) throws {
        guard let folder = conformanceDirectory.map({ $0 + "/cel" }), FileManager.default.fileExists(atPath: folder)
        else {
            print("➜ skipped: CEL conformance needs HEADRACE_CONFORMANCE")
            return
        }
        let source = try Data(contentsOf: URL(filePath: "\(folder)/\(file).textproto"))
        let root = try TextProto([UInt8](source))
        var counts = (checked: 0, messages: 0)
        for section in root.messages("section") {
            for test in section.messages("test") {
                let name = "\(file)/\(section.text("name") ?? "")/\(test.text("name") ?? "")"
                if try check(test, name) { counts.checked += 1 } else { counts.messages += 1 }
            }
        }
        #expect(counts == (checked, messages), "\(file)")
    }

    /// False when the test needs messages.
    private func check(_ test: TextProto, _ name: String) throws -> Bool {
        let source = test.text("expr") ?? ""
        var names: [String] = []
        var context = CELContext()
        for binding in test.messages("bindings") {
            guard let value = binding.message("value")?.message("value").flatMap(Self.value) else { return false }
            names.append(binding.text("key") ?? "")
            context.slots.append(value)
        }
        for declared in test.messages("type_env") where declared.message("ident") != nil {
            guard let name = declared.text("name"), !names.contains(name) else { continue }
            names.append(name)
        }
        let result: Result<CELValue, BaseError>
        do throws(BaseError) {
            let program = try CELProgram(
                source, variables: names, container: test.text("container") ?? "",
                isChecked: test.text("disable_check") != "true")
            result = .success(try program.evaluate(&context))
        } catch {
            result = .failure(error)
        }
        if Self.needsMessages(test, source) {
            // Refused or, where the message does not count, right.
            if case .success(let value) = result, let wanted = test.message("value").flatMap(Self.value) {
                #expect(CELValue.equal(value, wanted), "\(name): \(source) gave \(value)")
            }
            return false
        }
        let wantsError = test.message("eval_error") != nil || test.message("any_eval_errors") != nil
        switch result {
        case .failure(let error): #expect(wantsError, "\(name): \(source) failed: \(error)")
        case .success(let value):
            #expect(!wantsError, "\(name): \(source) gave \(value) where an error is due")
            if wantsError { break }
            let wanted = test.message("value") ?? test.message("typed_result")?.message("result")
            // Without a value, true is meant.
            let expected = wanted == nil ? CELValue.bool(true) : try #require(wanted.flatMap(Self.value), "\(name)")
            #expect(Self.same(value, expected), "\(name): \(source) gave \(value), not \(expected)")
        }
        return true
    }

    private static func needsMessages(_ test: TextProto, _ source: String) -> Bool {
        let words = [
            "TestAllTypes", "google.protobuf.Bool", "google.protobuf.Bytes", "google.protobuf.Double",
            "google.protobuf.Float",
            "google.protobuf.Int", "google.protobuf.UInt", "google.protobuf.String", "google.protobuf.Value",
            "google.protobuf.Struct", "google.protobuf.List", "google.protobuf.Any", "google.protobuf.Timestamp{",
            "google.protobuf.Duration{", "NullValue", "TestAllTypes.NestedEnum", "GlobalEnum", "NestedEnum",
        ]
        return words.contains { source.contains($0) }
    }

    /// Equal, and of one type all the way down; NaN is itself and zeros have signs.
    private static func same(_ left: CELValue, _ right: CELValue) -> Bool {
        switch (left, right) {
        case (.double(let a), .double(let b)): return a.isNaN ? b.isNaN : a == b && a.sign == b.sign
        case (.list(let a), .list(let b)): return a.count == b.count && zip(a, b).allSatisfy { same($0, $1) }
        case (.map(let a), .map(let b)):
            return a.count == b.count
                && a.allSatisfy { entry in b.contains { same($0.key, entry.key) && same($0.value, entry.value) } }
        default: return left.typeName == right.typeName && CELValue.equal(left, right)
        }
    }

    /// google.api.expr.v1alpha1.Value; nil for messages and enumerations.
    private static func value(_ proto: TextProto) -> CELValue? {
        guard let field = proto.fields.first else { return nil }
        switch field.name {
        case "null_value": return .null
        case "bool_value": return .bool(proto.text(field.name) == "true")
        case "int64_value": return proto.text(field.name).flatMap { Int64($0) }.map { .int($0) }
        case "uint64_value": return proto.text(field.name).flatMap { UInt64($0) }.map { .uint($0) }
        case "double_value":
            return proto.text(field.name).flatMap { Double($0 == "inf" || $0 == "-inf" ? $0 : $0) }.map { .double($0) }
        case "string_value": return proto.text(field.name).map { .string($0) }
        case "bytes_value": return proto.bytes(field.name).map { .bytes($0) }
        case "type_value": return proto.text(field.name).map { .type($0) }
        case "list_value":
            let values = proto.message("list_value")?.messages("values") ?? []
            let items = values.compactMap(value)
            return items.count == values.count ? .list(items) : nil
        case "map_value":
            let entries = proto.message("map_value")?.messages("entries") ?? []
            let items = entries.compactMap { entry -> (key: CELValue, value: CELValue)? in
                guard let key = entry.message("key").flatMap(value), let value = entry.message("value").flatMap(value)
                else { return nil }
                return (key, value)
            }
            return items.count == entries.count ? .map(items) : nil
        case "object_value":
            guard let span = proto.message("object_value")?.message("[type.googleapis.com/google.protobuf.Duration]")
            else { return nil }
            return .duration(
                (Int64(span.text("seconds") ?? "0") ?? 0) * 1_000_000_000 + (Int64(span.text("nanos") ?? "0") ?? 0))
        default: return nil
        }
    }
}
