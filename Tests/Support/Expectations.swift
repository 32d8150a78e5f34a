import Base
import Foundation
import Testing

/// The project's folder, found from this file.
let projectDirectory = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().path

/// A folder of its own for one test, removed when the value goes.
final class ScratchDirectory: Sendable {
    let path: String

    init() throws {
        path = FileManager.default.temporaryDirectory.appending(path: Self.prefix + UUID().uuidString).path
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
        Self.removeLeftovers
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    /// What a static holds is never released, so the process removes its folders once more when it ends.
    private static let removeLeftovers: Void = {
        atexit {
            let root = FileManager.default.temporaryDirectory.path
            for name in (try? FileManager.default.contentsOfDirectory(atPath: root)) ?? []
            where name.hasPrefix(ScratchDirectory.prefix) {
                try? FileManager.default.removeItem(atPath: root + "/" + name)
            }
        }
    }()

    /// Names this process's folders.
    private static let prefix = "headrace-test-\(ProcessInfo.processInfo.processIdentifier)-"
}

/// Runs a program to its end.
@discardableResult
func run(_ program: String, _ arguments: [String], input: String? = nil, environment: [String: String] = [:]) throws
    -> (status: Int32, output: String, errors: String)
{
    let scratch = try ScratchDirectory()
    let process = Process()
    process.executableURL = URL(filePath: program)
    process.arguments = arguments
    process.currentDirectoryURL = URL(filePath: projectDirectory)
    process.environment = ProcessInfo.processInfo.environment.merging(environment) { $1 }
    // Files and not pipes: a pipe that nobody empties stops the program.
    let files = try ["out", "err"].map { name in
        _ = FileManager.default.createFile(atPath: scratch.path + "/" + name, contents: nil)
        return try FileHandle(forWritingTo: URL(filePath: scratch.path + "/" + name))
    }
    process.standardOutput = files[0]
    process.standardError = files[1]
    if let input {
        let path = scratch.path + "/in"
        try Data(input.utf8).write(to: URL(filePath: path))
        process.standardInput = try FileHandle(forReadingFrom: URL(filePath: path))
    } else {
        process.standardInput = FileHandle.nullDevice
    }
    try process.run()
    process.waitUntilExit()
    func text(_ name: String) -> String {
        String(decoding: FileManager.default.contents(atPath: scratch.path + "/" + name) ?? Data(), as: UTF8.self)
    }
    return (process.terminationStatus, text("out"), text("err"))
}

/// The Python of the tests' own environment, where ./test made one.
let python: String? = {
    let path = projectDirectory + "/.cache/venv/bin/python"
    return FileManager.default.fileExists(atPath: path) ? path : nil
}()

let conformanceDirectory: String? = ProcessInfo.processInfo.environment["HEADRACE_CONFORMANCE"]

let flightsDirectory: String? = {
    let path = ProcessInfo.processInfo.environment["HEADRACE_FLIGHTS"] ?? projectDirectory + "/.cache/nycflights13"
    return FileManager.default.fileExists(atPath: path + "/flights.csv") ? path : nil
}()

/// The code of the described error a body throws; nil when it throws none.
func errorCode(_ body: () throws -> Void) -> String? {
    do {
        try body()
        return nil
    } catch let error as any DescribedError {
        return error.code
    } catch {
        return "\(error)"
    }
}

/// The same of what waits.
func asyncErrorCode(_ body: () async throws -> Void) async -> String? {
    do {
        try await body()
        return nil
    } catch let error as any DescribedError {
        return error.code
    } catch {
        return "\(error)"
    }
}
