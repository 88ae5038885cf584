package contracts

// OutputType is the value of an output's field "type".
type OutputType string

// The output types, one for each class of Girder Worker.
const (
	TypeGirderUploadItem   OutputType = "girder_upload_item"
	TypeGirderUploadFolder OutputType = "girder_upload_folder"
	TypeGirderJobArtifact  OutputType = "girder_job_artifact"
)

// OutputSpec is one thing to put into Girder after the container ended. The
// types of this file are all there are.
type OutputSpec interface {
	OutputType() OutputType
	// From is the path to upload.
	From() *VolumePath
}

// GirderUploadItem uploads a file, or every file of a folder (flat), into an item.
type GirderUploadItem struct {
	// Path is absent where the upload is the output of a [Connect].
	Path   OutputPath `json:"path,omitzero"`
	ItemID string     `json:"item_id"`
	// DeleteFile removes the file from the volume afterwards.
	DeleteFile bool `json:"delete_file,omitzero"`
	// MustExist is true if absent: a missing path is an error.
	MustExist    *bool             `json:"must_exist,omitempty"`
	UploadKwargs map[string]string `json:"upload_kwargs,omitempty"`
	Girder       *GirderAccess     `json:"girder,omitempty"`
}

// GirderUploadFolder uploads a file, or a folder recursively, into a folder.
type GirderUploadFolder struct {
	// Path is absent where the upload is the output of a [Connect].
	Path         OutputPath        `json:"path,omitzero"`
	FolderID     string            `json:"folder_id"`
	DeleteFile   bool              `json:"delete_file,omitzero"`
	MustExist    *bool             `json:"must_exist,omitempty"`
	UploadKwargs map[string]string `json:"upload_kwargs,omitempty"`
	Girder       *GirderAccess     `json:"girder,omitempty"`
}

// GirderJobArtifact attaches a file, or every file of a folder (flat), to the
// Girder job.
type GirderJobArtifact struct {
	Path              OutputPath    `json:"path"`
	Name              string        `json:"name,omitempty"`
	UploadOnException bool          `json:"upload_on_exception,omitzero"`
	Girder            *GirderAccess `json:"girder,omitempty"`
}

func (*GirderUploadItem) OutputType() OutputType   { return TypeGirderUploadItem }
func (*GirderUploadFolder) OutputType() OutputType { return TypeGirderUploadFolder }
func (*GirderJobArtifact) OutputType() OutputType  { return TypeGirderJobArtifact }

func (o *GirderUploadItem) From() *VolumePath   { return &o.Path.VolumePath }
func (o *GirderUploadFolder) From() *VolumePath { return &o.Path.VolumePath }
func (o *GirderJobArtifact) From() *VolumePath  { return &o.Path.VolumePath }

var decodeOutputs = map[OutputType]unionDecoder[OutputSpec]{
	TypeGirderUploadItem:   as[OutputSpec, GirderUploadItem],
	TypeGirderUploadFolder: as[OutputSpec, GirderUploadFolder],
	TypeGirderJobArtifact:  as[OutputSpec, GirderJobArtifact],
}
