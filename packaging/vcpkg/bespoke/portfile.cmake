# An overlay port for a clone: `vcpkg install bespoke --overlay-ports=packaging/vcpkg`. Cargo builds, without libtorch.
get_filename_component(SOURCE_PATH "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
find_program(CARGO cargo HINTS "$ENV{HOME}/.cargo/bin" REQUIRED)

set(built "${CURRENT_BUILDTREES_DIR}/cargo")
vcpkg_execute_required_process(
  COMMAND "${CARGO}" build --release --locked --no-default-features --features cli,onnx --bin bespoke --target-dir "${built}"
  WORKING_DIRECTORY "${SOURCE_PATH}"
  LOGNAME program)
vcpkg_execute_required_process(
  COMMAND "${CARGO}" rustc --release --locked --no-default-features --features onnx --lib --crate-type cdylib,staticlib
          --target-dir "${built}"
  WORKING_DIRECTORY "${SOURCE_PATH}"
  LOGNAME library)

set(static "")
if(VCPKG_LIBRARY_LINKAGE STREQUAL "static")
  set(static "${built}/release/libbespoke.a")
endif()
vcpkg_execute_required_process(
  COMMAND "${SOURCE_PATH}/scripts/install.sh" "${built}/release/libbespoke.so" "${built}/release/bespoke"
          "${CURRENT_PACKAGES_DIR}" ${static}
  WORKING_DIRECTORY "${SOURCE_PATH}"
  LOGNAME install)

# One profile serves both configurations; programs are tools.
set(VCPKG_BUILD_TYPE release)
set(VCPKG_POLICY_EMPTY_PACKAGE disabled)
file(MAKE_DIRECTORY "${CURRENT_PACKAGES_DIR}/tools")
file(RENAME "${CURRENT_PACKAGES_DIR}/bin" "${CURRENT_PACKAGES_DIR}/tools/bespoke")
file(RENAME "${CURRENT_PACKAGES_DIR}/lib/cmake/bespoke" "${CURRENT_PACKAGES_DIR}/share/bespoke")
file(REMOVE_RECURSE "${CURRENT_PACKAGES_DIR}/lib/cmake")
vcpkg_replace_string("${CURRENT_PACKAGES_DIR}/share/bespoke/bespoke-config.cmake" "/../../.." "/../..")
vcpkg_install_copyright(FILE_LIST "${SOURCE_PATH}/LICENSE-MIT" "${SOURCE_PATH}/LICENSE-APACHE"
  "${SOURCE_PATH}/LICENSES-OF-DEPENDENCIES.md")
