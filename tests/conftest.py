def pytest_addoption(parser):
    parser.addoption("--update-golden", action="store_true",
                     help="write the digests of this build to tests/golden/")
