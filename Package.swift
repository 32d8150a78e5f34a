// swift-tools-version: 6.2
import PackageDescription

let settings: [SwiftSetting] = [
    .swiftLanguageMode(.v6),
    .enableUpcomingFeature("ExistentialAny"),
    .treatAllWarnings(as: .error),
    .unsafeFlags(
        ["-cross-module-optimization"]
            + (Context.environment["HEADRACE_EXCLUSIVITY"] == "checked" ? [] : ["-enforce-exclusivity=unchecked"]),
        .when(configuration: .release)),
]

func target(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .target(name: name, dependencies: dependencies, swiftSettings: settings)
}

func product(_ name: String, _ package: String) -> Target.Dependency {
    .product(name: name, package: package)
}

let grdb = product("GRDB", "GRDB.swift")
let crypto = product("Crypto", "swift-crypto")

/// Only Fuzz/run asks for it: it links libFuzzer's main.
let fuzzing: [Target] =
    Context.environment["HEADRACE_FUZZ"] == nil
    ? [] : [.executableTarget(name: "headrace-fuzz", dependencies: ["EventLog"], path: "Fuzz", exclude: ["run"])]

let package = Package(
    name: "headrace",
    platforms: [.macOS(.v15)],
    products: [
        .executable(name: "headrace", targets: ["headrace"]), .library(name: "Headrace", targets: ["Headrace"]),
    ],
    dependencies: [
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1"),
        .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0"),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
        .package(url: "https://github.com/apple/swift-crypto", from: "4.5.2"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
    ],
    targets: [
        .systemLibrary(name: "CLZ4", pkgConfig: "liblz4", providers: [.apt(["liblz4-dev"])]),
        .systemLibrary(name: "CXGBoost", pkgConfig: "xgboost", providers: [.apt(["libxgboost-dev"])]),
        .systemLibrary(name: "CRdKafka", pkgConfig: "rdkafka", providers: [.apt(["librdkafka-dev"])]),
        .target(name: "CPlatform", cSettings: [.unsafeFlags(["-O2"])]),
        // RE2 is C++; this is all of it that is used, as C. Debian: libre2-dev.
        .target(name: "CRE2", linkerSettings: [.linkedLibrary("re2")]),
        target("Base", ["CRE2", crypto]),
        target("RecordFormat", ["Base", "CPlatform", "CLZ4"]),
        target("EventLog", ["Base", "CPlatform", "RecordFormat"]),
        target("KafkaLog", ["Base", "RecordFormat", "EventLog", "CRdKafka"]),
        .target(
            name: "BenchmarkBodies",
            dependencies: [
                "Base", "RecordFormat", "EventLog", "Catalog", "Streams", "StreamExamples", "Features", "Datasets",
                "Node",
            ],
            path: "Benchmarks/Bodies",
            swiftSettings: settings),
        .executableTarget(
            name: "headrace-bench",
            dependencies: [
                "Base", "EventLog", "KafkaLog", "StreamExamples", "BenchmarkBodies",
                product("ArgumentParser", "swift-argument-parser"),
            ],
            path: "Benchmarks/headrace-bench", swiftSettings: settings),
        target("Simulation", ["Base", "RecordFormat", "EventLog"]),
        .executableTarget(
            name: "headrace-simulate",
            dependencies: ["Base", "Simulation", product("ArgumentParser", "swift-argument-parser")],
            swiftSettings: settings),
        target("Catalog", ["Base", product("Yams", "Yams")]),
        target("Privacy", ["Base", "CPlatform", "EventLog", "Catalog", crypto]),
        target("Gateway", ["Base", "RecordFormat", "EventLog", "Catalog", "Privacy"]),
        target("Streams", ["Base", "RecordFormat", "EventLog", "Catalog", "Learning", grdb]),
        target("Learning", ["Base"]),
        target("Features", ["Base", "RecordFormat", "EventLog", "Catalog", "Streams", "Learning"]),
        target("Datasets", ["Base", "RecordFormat", "EventLog", "Catalog", "Streams", "Learning"]),
        target("Models", ["Base", "RecordFormat", "EventLog", "Catalog", "Streams", "Learning", grdb]),
        target("Supervision", ["Base", "RecordFormat", "EventLog", "Catalog", "Streams", "Learning", grdb]),
        target("Lineage", ["Base", "RecordFormat", "EventLog", "Catalog", "Streams", "Learning", grdb]),
        target(
            "Training",
            ["Base", "RecordFormat", "EventLog", "Catalog", "Streams", "Learning", "Datasets", "Models", "CXGBoost"]),
        target("Connectors", ["Base", "RecordFormat", "EventLog", "Catalog", "Gateway"]),
        target(
            "HTTP",
            [
                "Base", product("Hummingbird", "hummingbird"), product("HummingbirdCore", "hummingbird"),
            ]),
        target(
            "API",
            [
                "Base", "RecordFormat", "HTTP", "EventLog", "Catalog", "Gateway", "Streams", "Features", "Models",
                "Supervision", "Lineage",
            ]),
        target(
            "Node",
            [
                "Base", "CPlatform", "RecordFormat", "EventLog", "Catalog", "Gateway", "Streams", "Learning",
                "Features", "Datasets",
                "Models", "Supervision", "Lineage", "Training", "Connectors", "HTTP", "API", "KafkaLog", "Privacy",
                grdb,
            ]),
        .target(
            name: "Headrace",
            dependencies: [
                "Base", "RecordFormat", "EventLog", "Catalog", "Gateway", "HTTP", "API", "Node", "Streams",
                product("ArgumentParser", "swift-argument-parser"),
            ],
            path: "Sources/Application", swiftSettings: settings),
        .executableTarget(name: "headrace", dependencies: ["Headrace"], swiftSettings: settings),
        // What users write, with what they see: nothing of the package's own.
        .target(
            name: "StreamExamples", dependencies: ["Headrace"], path: "Examples/streams/Sources/StreamExamples",
            packageAccess: false, swiftSettings: settings),
        .executableTarget(
            name: "flight-streams", dependencies: ["Headrace", "StreamExamples"],
            path: "Examples/streams/Sources/flight-streams", packageAccess: false, swiftSettings: settings),
        .executableTarget(
            name: "shop-streams", dependencies: ["Headrace", "StreamExamples"],
            path: "Examples/streams/Sources/shop-streams", packageAccess: false, swiftSettings: settings),
        .testTarget(
            name: "HeadraceTests",
            dependencies: [
                "Base", "CPlatform", "RecordFormat", "EventLog", "Catalog", "Gateway", "Streams", "Learning",
                "Features",
                "Datasets", "Models", "Supervision", "Lineage", "Training", "Connectors", "HTTP", "API", "Node",
                "Simulation", "BenchmarkBodies", "StreamExamples", "KafkaLog", "CRdKafka", "Privacy", grdb,
            ],
            path: "Tests", exclude: ["EndToEnd/Oracle", "Contract/Python"], swiftSettings: settings),
    ] + fuzzing
)
